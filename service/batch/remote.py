"""Rows segmented by a running service, with the client's retries, in the place of a model in this process."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from ebseg_client import (
    Balance,
    BusyError,
    ClassSpec,
    ClientError,
    ConnectionFailedError,
    DeadlineError,
    DeadlineExceededError,
    EBSegClient,
    Segmentation,
    SegmentOptions,
    Shares,
    Tiling,
    UnavailableError,
)
from ebseg_client.exchange import HOPELESS
from ebseg_client.parallel import in_order
from service.batch.reading import UnreadableError, content_of, most_bytes
from service.batch.request import read_batch_request
from service.batch.rows import COLUMNS, Row, failed, row_id
from service.local.remote_errors import is_of_all
from service.options import MAX_PIXELS
from service.schemas.balance import BalanceSpec, WeightShares
from service.schemas.segment import SegmentRequest

PATIENCE_S = 600.0  # for one picture, waits for a busy service included
PAUSE_S = 8.0  # after the client's own attempts
AWAY, BUSY = "the service is away", "the service is busy"


class RemoteSegmenter:
    """See `BatchSegmenter.segment`; an error that all pictures would meet fails the run, not a row.

    So does a service that is busy, not ready or away for as long as one picture may take: it says nothing of
    the picture.

    Args:
        url: of the service.
        request: a document of `POST /v1/segment`, without a picture.
        api_key: sent along, if given.
        threads: requests at a time.
        max_pixels: files that are too large for so many pixels are not read; the service has its own limits.
        waits: called, by any of the threads, with why a picture waits for the service.

    Raises:
        UsageError, InputError: the request, the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        request: Mapping[str, Any],
        *,
        api_key: str | None,
        threads: int,
        max_pixels: int = MAX_PIXELS,
        waits: Callable[[str], None] = lambda why: None,
    ):
        spec = read_batch_request(request, remote=True)
        self._classes = _classes(spec)
        self._options = _options(spec)
        self._client = EBSegClient(url, api_key=api_key, timeout=PATIENCE_S, connections=threads)
        self._threads = threads
        self._most = most_bytes(max_pixels)
        self._waits = waits
        self._given_up = threading.Event()
        self._fault: Exception | None = None  # the first of those that end the run

    def segment(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """The rows' results, in order.

        Raises:
            ClientError: all pictures would meet it; the connections are closed then.
        """
        self._given_up.clear()
        with closing(in_order(self._one, enumerate(rows), self._threads)) as results:
            try:
                # `yield from` would close them, and wait, before anybody gives up
                for result in results:  # noqa: UP028
                    yield result
            except Exception as error:
                raise self._fault or error from None  # not one whose pause the fault has ended
            finally:
                self._given_up.set()  # nobody waits for what else was begun

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def _one(self, numbered: tuple[int, Mapping[str, Any]]) -> Row:
        try:
            return self._row(*numbered)
        except Exception as error:
            self._fault = self._fault or error
            self._given_up.set()  # the others' pauses end, which are waited for
            self._client.close()  # and so do those of the client's own attempts
            raise

    def _row(self, index: int, row: Mapping[str, Any]) -> Row:
        id = row_id(row, index)
        try:
            answer = self._answer(content_of(row, self._most))
        except (UnreadableError, ClientError) as error:
            if is_of_all(error) or _may_pass(error):
                raise
            return failed(id, error)
        return dict.fromkeys(COLUMNS) | {
            "id": id,
            "width": answer.width,
            "height": answer.height,
            "label_map": answer.png,
            "classes": [one.name for one in answer.classes],
            "areas": [one.area for one in answer.classes],
            "confidence": [0.0 if one.confidence is None else one.confidence for one in answer.classes],
        }

    def _answer(self, content: bytes) -> Segmentation:
        until = time.monotonic() + PATIENCE_S
        passing: ClientError | None = None
        while True:
            options = self._options | {"timeout": max(1.0, until - time.monotonic())}
            try:
                return self._client.segment(content, self._classes, **options)
            except (BusyError, UnavailableError, ConnectionFailedError) as error:
                passing = error
                asked, why = (
                    (None, AWAY) if isinstance(error, ConnectionFailedError) else (error.retry_after, BUSY)
                )
                pause = max(PAUSE_S, asked or 0.0)
                if not _may_pass(error) or time.monotonic() + pause > until or self._given_up.is_set():
                    raise
                self._waits(why)
                if self._given_up.wait(pause):
                    raise
            except DeadlineError as error:
                if passing is None or isinstance(error, DeadlineExceededError):
                    raise
                raise passing from None  # the picture's time went by while nobody listened


def _may_pass(error: Exception) -> bool:
    """Whether the service is busy, not ready or away, whatever it is asked for."""
    if isinstance(error, BusyError | UnavailableError):
        return error.type not in HOPELESS
    return isinstance(error, ConnectionFailedError)


def _classes(spec: SegmentRequest) -> list[str | ClassSpec] | None:
    if spec.classes is None:
        return None
    return [
        ClassSpec(
            name=entry.name,
            synonyms=tuple(entry.synonyms),
            trained=entry.trained,
            color=entry.color,
            threshold=entry.threshold,
            ignore=entry.ignore,
        )
        for entry in spec.classes
    ]


def _options(spec: SegmentRequest) -> SegmentOptions:
    made: SegmentOptions = {
        "vocabulary": spec.vocabulary,
        "templates": spec.templates,
        "synonym_mode": spec.synonym_mode,
        "balance": None if spec.balance is None else _balance(spec.balance),
        "outputs": ["png"],
        "palette": spec.palette,
        "tiling": None if spec.tiling is None else Tiling(spec.tiling.size, spec.tiling.overlap),
        "long_side": None if spec.output_size is None else spec.output_size.long_side,
        "model": spec.model,
        "version": spec.version,
        "frame": spec.frame,
    }
    if "background" in spec.model_fields_set:
        made["background"] = "none" if spec.background is None else spec.background.threshold
    return made


def _balance(spec: BalanceSpec) -> Balance:
    def shares(given: WeightShares | None) -> Shares | None:
        return None if given is None else Shares(**given.model_dump())

    return Balance(spec.mean, trained=shares(spec.trained), new=shares(spec.new))
