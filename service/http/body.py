"""The bytes of a request's body, whose memory is reserved as they come."""

import asyncio
from collections.abc import Callable

from starlette.requests import Request

from service.errors import TooManyBytesError
from service.http.arrival import arrival_of
from service.scheduling.host_memory import HostAccount


async def read_body(request: Request, memory: HostAccount, *, most: int | None = None) -> list[bytes]:
    """A body in the pieces that it came in; joining them is for a picture thread.

    Args:
        request: whose body was not read.
        memory: where its bytes are reserved as they come.
        most: bytes, where it may have fewer than any body.

    Raises:
        TooManyBytesError: it has more.
        HostMemoryError, TooMuchMemoryError: as of `HostAccount.arrive`.
    """
    chunks: list[bytes] = []
    arrival = arrival_of(request.scope)
    try:
        if arrival is not None and arrival.complete:
            await _gather(request, memory, memory.take, most, chunks)
        else:
            await _await_body(request, memory, most, chunks)
    except BaseException:
        chunks.clear()  # the error's frames have them as long as a refused client is given time to read
        raise
    return chunks


async def _await_body(request: Request, memory: HostAccount, most: int | None, chunks: list[bytes]) -> None:
    """Gathers a body that is on its way, as long as no smaller one needs its place."""
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(None) as until:
            with memory.arriving(lambda: until.reschedule(now())):
                await _gather(request, memory, memory.arrive, most, chunks)
    except TimeoutError:
        if until.expired():
            raise memory.full() from None
        raise


async def _gather(
    request: Request,
    memory: HostAccount,
    reserve: Callable[[int], None],
    most: int | None,
    chunks: list[bytes],
) -> None:
    # not request.body(), which would keep the bytes for as long as the request lasts
    async for chunk in request.stream():
        reserve(len(chunk))
        if most is not None and memory.nbytes > most:
            raise TooManyBytesError(f"the body is too large; at most {most} bytes are taken here")
        chunks.append(chunk)
