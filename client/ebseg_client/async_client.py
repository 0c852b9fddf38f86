"""The client for asyncio."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
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
from ebseg_client.parallel import AHEAD
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


class AsyncEBSegClient:
    """`EBSegClient` for an event loop of asyncio: the same arguments, methods and errors, with `await`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retry: Retry | None = None,
        connections: int = CONNECTIONS,
        verify: bool | ssl.SSLContext = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self._timeout = checked_timeout(timeout)
        self._retry = retry or Retry()
        self._http = httpx.AsyncClient(**options(url, api_key, connections, verify), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections; later calls fail."""
        await self._http.aclose()

    async def segment(
        self, picture: Picture, classes: Classes | None = None, **options: Unpack[SegmentOptions]
    ) -> Segmentation:
        """Finds classes in a picture; see `EBSegClient.segment`. A thread reads or encodes the picture."""
        data = picture if isinstance(picture, bytes) else await asyncio.to_thread(sent, picture)
        return await self._run(calls.segment(data, classes, options), options.get("timeout"))

    async def segment_many(
        self,
        pictures: Iterable[Picture],
        classes: Classes | None = None,
        *,
        parallel: int = 4,
        **options: Unpack[SegmentOptions],
    ) -> AsyncGenerator[Segmented, None]:
        """Finds classes in many pictures, some at a time; see `EBSegClient.segment_many`.

        Whoever stops early should close the iterator (`aclose`), which cancels what is under way.
        """
        if parallel < 1:
            raise InputError(f"at least one request at a time is needed, got {parallel}")
        calls.segment(b"", classes, options)
        places = asyncio.Semaphore(parallel)

        async def one(picture: Picture) -> Segmented:
            async with places:
                try:
                    return Segmented(picture, await self.segment(picture, classes, **options), None)
                except ClientError as error:
                    return Segmented(picture, None, error)

        waiting: deque[asyncio.Task[Segmented]] = deque()
        try:
            for picture in pictures:
                waiting.append(asyncio.create_task(one(picture)))
                if len(waiting) >= AHEAD * parallel:
                    yield await waiting[0]
                    waiting.popleft()
            while waiting:
                yield await waiting[0]
                waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def segment_together(
        self, pictures: Iterable[Picture], classes: Classes | None = None, **options: Unpack[SegmentOptions]
    ) -> list[Segmented]:
        """Finds the same classes in a few pictures by one request; see `EBSegClient.segment_together`."""
        given = list(pictures)
        timeout = options.get("timeout")
        found = await self._driven(
            together(
                await asyncio.to_thread(lambda: [sent(one) for one in given]),
                classes,
                options,
                seconds=self._timeout if timeout is None else checked_timeout(timeout),
                retry=self._retry,
                request_id=new_request_id(),
            )
        )
        return [Segmented.of(*pair) for pair in zip(given, found, strict=True)]

    async def vocabularies(self) -> list[VocabularySummary]:
        """All stored class lists."""
        return await self._run(calls.vocabularies())

    async def vocabulary(self, name: str) -> Vocabulary:
        """A stored class list."""
        return await self._run(calls.vocabulary(name))

    async def put_vocabulary(self, name: str, classes: Classes, *, shared: bool = False) -> Vocabulary:
        """Stores a class list, in place of one of the same name; `shared` lets other API keys use it."""
        return await self._run(calls.put_vocabulary(name, classes, shared=shared))

    async def delete_vocabulary(self, name: str) -> None:
        """Removes a stored class list."""
        await self._run(calls.delete_vocabulary(name))

    async def models(self) -> ModelList:
        """The loaded models, the default one first; its `missing` are those that do not serve."""
        return await self._run(calls.models())

    async def model(self, name: str) -> ModelDetails:
        """A loaded model."""
        return await self._run(calls.model(name))

    async def pin(self, name: str, version: int) -> ModelChange:
        """Stays at a version; needs an admin key, as the next four do."""
        return await self._run(calls.pin(name, version))

    async def canary(self, name: str, version: int, percent: int) -> ModelChange:
        """Tries a version on so many percent of the requests, beside the one that serves."""
        return await self._run(calls.canary(name, version, percent))

    async def unpin(self, name: str) -> ModelChange:
        """Follows the registry again."""
        return await self._run(calls.change(name, "unpin"))

    async def rollback(self, name: str) -> ModelChange:
        """Goes back to the version before."""
        return await self._run(calls.change(name, "rollback"))

    async def reload(self, name: str) -> ModelChange:
        """Looks at the registry now."""
        return await self._run(calls.change(name, "reload"))

    async def health(self) -> Health:
        """Whether the service takes requests; asked once, whatever it answers."""
        return await self._run(calls.health())

    async def _run(self, call: Call[T], timeout: float | None = None) -> T:
        seconds = self._timeout if timeout is None else checked_timeout(timeout)
        steps = exchange(call, seconds=seconds, retry=self._retry, request_id=new_request_id())
        return await self._driven(steps)

    async def _driven(self, steps: Generator[Send | Wait, Reply, T]) -> T:
        """Does what the steps say."""
        reply: Reply = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                return cast(T, stop.value)
            if isinstance(step, Send):
                reply = await self._send(step)
            else:
                await asyncio.sleep(step.seconds)
                reply = None

    async def _send(self, send: Send) -> httpx.Response | Exception:
        if self._http.is_closed:
            raise ConnectionFailedError(CLOSED)
        body = Body(send.until)
        try:
            async with self._http.stream(
                send.method, send.path, headers=send.headers, timeout=send.timeout, **send.body
            ) as streamed:
                async for part in streamed.aiter_bytes():
                    body.add(part)
                return body.response(streamed)
        except (httpx.RequestError, AnswerError) as error:
            return error
