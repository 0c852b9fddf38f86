"""The client for programs without an event loop."""

import ssl
import threading
import time
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Self, TypeVar, Unpack, cast

import httpx

from ebseg_client import calls
from ebseg_client.connection import (
    CLOSED,
    CONNECTIONS,
    TIMEOUT,
    Body,
    checked_timeout,
    new_request_id,
    options,
)
from ebseg_client.errors import AnswerError, ClientError, ConnectionFailedError, InputError
from ebseg_client.exchange import Call, Reply, Retry, Send, Wait, exchange
from ebseg_client.parallel import in_order
from ebseg_client.requests import Classes, Picture, SegmentOptions, sent
from ebseg_client.results import (
    Health,
    ModelChange,
    ModelDetails,
    ModelList,
    Segmentation,
    Segmented,
    Vocabulary,
    VocabularySummary,
)
from ebseg_client.together import together

T = TypeVar("T")


class EBSegClient:
    """Talks to a running service; one client may be used by many threads.

    Connections are kept open between calls; close the client, or use it as a context.

    Args:
        url: of the service, `http://HOST:PORT`; a path before `/v1` is kept.
        api_key: sent with every request, if given.
        timeout: seconds for a call, retries and waits included, unless the call says otherwise.
        retry: when to send a request again.
        connections: open at a time.
        verify: whether, or with which certificates, https is verified.
        transport: instead of sockets, as httpx takes it; for tests and unusual networks.

    Raises:
        InputError: the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry | None = None,
        connections: int = CONNECTIONS,
        verify: bool | ssl.SSLContext = True,
        transport: httpx.BaseTransport | None = None,
    ):
        self._timeout = checked_timeout(timeout)
        self._retry = retry or Retry()
        self._http = httpx.Client(**options(url, api_key, connections, verify), transport=transport)
        self._closed = threading.Event()
        # httpcore's own queue may close a connection that becomes idle under the request that was given it
        self._places = threading.BoundedSemaphore(connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; calls that wait before another attempt fail at once, as later ones do."""
        self._closed.set()
        self._http.close()

    def segment(
        self, picture: Picture, classes: Classes | None = None, **options: Unpack[SegmentOptions]
    ) -> Segmentation:
        """Finds classes in a picture.

        Args:
            picture: a path, a file's bytes, a Pillow image, pixels uint8 [H, W(, 3 or 4)], or a `PictureUrl`.
            classes: names, or `ClassSpec`s; or give `vocabulary`.
            options: see `SegmentOptions`.

        Raises:
            InputError: the picture cannot be read, or an argument is wrong.
            ClientError: see `ebseg_client.errors`.
        """
        call = calls.segment(sent(picture), classes, options)
        return self._run(call, options.get("timeout"))

    def segment_many(
        self,
        pictures: Iterable[Picture],
        classes: Classes | None = None,
        *,
        parallel: int = 4,
        **options: Unpack[SegmentOptions],
    ) -> Generator[Segmented, None, None]:
        """Finds classes in many pictures, some at a time; the results come in the order of the pictures.

        A picture that fails is a result with an `error`, and the others go on. Pictures are taken as places
        become free, so there may be any number of them.

        Args:
            pictures: as for `segment`.
            classes: of all of them.
            parallel: requests at a time; no more than the client has connections.
            options: of all of them; `timeout` is of each.

        Raises:
            InputError: an argument is wrong.
        """
        if parallel < 1:
            raise InputError(f"at least one request at a time is needed, got {parallel}")
        calls.segment(b"", classes, options)  # what is wrong for all is raised before the first is sent

        def one(picture: Picture) -> Segmented:
            try:
                return Segmented(picture, self.segment(picture, classes, **options), None)
            except ClientError as error:
                return Segmented(picture, None, error)

        return in_order(one, pictures, parallel)

    def segment_together(
        self, pictures: Iterable[Picture], classes: Classes | None = None, **options: Unpack[SegmentOptions]
    ) -> list[Segmented]:
        """Finds the same classes in a few pictures by one request, whose pictures share batches.

        A picture that fails is a result with an `error`; one for which there was no room is sent again.

        Args:
            pictures: as for `segment`; the service takes so many as its settings say, 16 by default.
            classes: of all of them.
            options: of all of them; `timeout` is of all together.

        Raises:
            InputError: a picture cannot be read, or an argument is wrong.
            ClientError: of the request as a whole.
        """
        given = list(pictures)
        timeout = options.get("timeout")
        found = self._driven(
            together(
                [sent(one) for one in given],
                classes,
                options,
                seconds=self._timeout if timeout is None else checked_timeout(timeout),
                retry=self._retry,
                request_id=new_request_id(),
            )
        )
        return [Segmented.of(*pair) for pair in zip(given, found, strict=True)]

    def vocabularies(self) -> list[VocabularySummary]:
        """All stored class lists."""
        return self._run(calls.vocabularies())

    def vocabulary(self, name: str) -> Vocabulary:
        """A stored class list."""
        return self._run(calls.vocabulary(name))

    def put_vocabulary(self, name: str, classes: Classes, *, shared: bool = False) -> Vocabulary:
        """Stores a class list, in place of one of the same name; `shared` lets other API keys use it."""
        return self._run(calls.put_vocabulary(name, classes, shared=shared))

    def delete_vocabulary(self, name: str) -> None:
        """Removes a stored class list."""
        self._run(calls.delete_vocabulary(name))

    def models(self) -> ModelList:
        """The loaded models, the default one first; its `missing` are those that do not serve."""
        return self._run(calls.models())

    def model(self, name: str) -> ModelDetails:
        """A loaded model."""
        return self._run(calls.model(name))

    def pin(self, name: str, version: int) -> ModelChange:
        """Stays at a version; needs an admin key, as the next four do."""
        return self._run(calls.pin(name, version))

    def canary(self, name: str, version: int, percent: int) -> ModelChange:
        """Tries a version on so many percent of the requests, beside the one that serves."""
        return self._run(calls.canary(name, version, percent))

    def unpin(self, name: str) -> ModelChange:
        """Follows the registry again."""
        return self._run(calls.change(name, "unpin"))

    def rollback(self, name: str) -> ModelChange:
        """Goes back to the version before."""
        return self._run(calls.change(name, "rollback"))

    def reload(self, name: str) -> ModelChange:
        """Looks at the registry now."""
        return self._run(calls.change(name, "reload"))

    def health(self) -> Health:
        """Whether the service takes requests; asked once, whatever it answers."""
        return self._run(calls.health())

    def _run(self, call: Call[T], timeout: float | None = None) -> T:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        steps = exchange(call, seconds=seconds, retry=self._retry, request_id=new_request_id())
        return self._driven(steps)

    def _driven(self, steps: Generator[Send | Wait, Reply, T]) -> T:
        """Does what the steps say."""
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                return cast(T, stop.value)
            if isinstance(step, Send):
                reply = self._send(step)
            else:
                self._wait(step)
                reply = None

    def _send(self, send: Send) -> httpx.Response | Exception:
        if not self._places.acquire(timeout=max(0.0, send.until - time.monotonic())):
            return httpx.PoolTimeout("all connections are in use")
        try:
            return self._sent(send)
        finally:
            self._places.release()

    def _sent(self, send: Send) -> httpx.Response | Exception:
        if self._http.is_closed:
            raise ConnectionFailedError(CLOSED)
        body = Body(send.until)
        try:
            with self._http.stream(
                send.method, send.path, headers=send.headers, timeout=send.timeout, **send.body
            ) as streamed:
                for part in streamed.iter_bytes():
                    body.add(part)
                return body.response(streamed)
        except (httpx.RequestError, AnswerError) as error:
            return error

    def _wait(self, wait: Wait) -> None:
        if self._closed.wait(wait.seconds):
            raise ConnectionFailedError(CLOSED)
