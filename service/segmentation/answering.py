"""What routes that segment do around the pipeline."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from model.confidence.caution import AnswerWarning
from service.errors import ClientGoneError
from service.http.arrival import arrival_of
from service.http.parsed_request import Fetch
from service.runtime import HttpSide
from service.scheduling.engine import ModelInfo
from service.scheduling.host_memory import HostAccount
from service.schemas.segment import SegmentRequest
from service.segmentation.resolved import chosen_deadline

T = TypeVar("T")
_IN_ONE_GO = 1 << 16  # bytes; of a larger answer the connection says when the most has left


class HeldResponse(Response):
    """An answer whose memory is given back when its last bytes have left, or its client has gone.

    Args:
        body: of the answer.
        memory: what the request reserved.
        headers, media_type: of the answer.
    """

    def __init__(self, body: bytes, memory: HostAccount, *, headers: Mapping[str, str], media_type: str):
        super().__init__(body, headers=headers, media_type=media_type)
        memory.keep(len(body))
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            if len(self.body) <= _IN_ONE_GO:
                await super().__call__(scope, receive, send)
                return
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            # waits until the connection has taken the most of it
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._memory.close()


@contextmanager
def reserving(service: HttpSide) -> Iterator[HostAccount]:
    """Counts what a request takes of the host's memory; if no answer comes of it, it is given back."""
    memory = service.memory.open()
    try:
        yield memory
    except BaseException:
        memory.close()
        raise


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work`, and cancels it when the client hangs up. The request's body must have been read.

    Raises:
        ClientGoneError: it did.
    """
    here = asyncio.current_task()
    assert here is not None
    cancelled = here.cancelling()  # asyncio's way to tell one cancellation from another
    gone = False

    def leave() -> None:
        nonlocal gone
        gone = True
        here.cancel()

    arrival = arrival_of(request.scope)
    waiting = None
    if arrival is None:
        waiting = asyncio.create_task(_leave_if_gone(request, leave))
    else:
        arrival.watch(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and here.uncancel() <= cancelled:
            raise ClientGoneError("the client hung up before its response was ready") from None
        raise
    finally:
        if waiting is not None:
            waiting.cancel()
        if arrival is not None:
            arrival.watch(None)


def fetching(request: Request, service: HttpSide, memory: HostAccount) -> Fetch:
    """Gets a picture by its URL, within the request's time and as long as its client is there.

    Args:
        request: whose body was read.
        service: with what may be fetched.
        memory: where the picture's bytes are reserved as they come.
    """

    async def fetch(spec: SegmentRequest, url: str) -> list[bytes]:
        deadline, _ = chosen_deadline(spec, service.settings, request.state.since)
        return await unless_gone(request, service.remote_pictures.fetch(url, memory, deadline))

    return fetch


def telling(request: Request) -> Callable[[ModelInfo], None]:
    """Tells log, trace and metrics which version has the request, whatever becomes of it."""

    def chosen(info: ModelInfo) -> None:
        request.state.version = info
        request.state.model = f"{info.name}/{info.version}"

    return chosen


def note(
    request: Request, info: ModelInfo, seconds: dict[str, float], warnings: Sequence[AnswerWarning]
) -> dict[str, str]:
    """Tells `Server-Timing` of an answer; the headers that name its model and its warnings."""
    request.state.seconds = seconds
    headers = {"X-EBSeg-Model": f"{info.name}/{info.version}"}
    if info.untrained:
        headers["X-EBSeg-Untrained"] = "true"
    if warnings:
        headers["X-EBSeg-Warnings"] = ", ".join(one.code for one in warnings)
    return headers


async def _leave_if_gone(request: Request, leave: Callable[[], None]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    leave()
