"""What routes that segment do around the pipeline."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from model.confidence.caution import AnswerWarning
from service.errors import ClientGoneError
from service.scheduling.engine import ModelInfo

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work`, and cancels it when the client hangs up. The request's body must have been read.

    Raises:
        ClientGoneError: it did.
    """
    here = asyncio.current_task()
    assert here is not None
    cancelled = here.cancelling()  # asyncio's way to tell one cancellation from another
    gone = asyncio.create_task(_cancel_if_gone(request, here))
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and here.uncancel() <= cancelled:
            raise ClientGoneError("the client hung up before its answer was ready") from None
        raise
    finally:
        gone.cancel()


def note(
    request: Request, info: ModelInfo, seconds: dict[str, float], warnings: Sequence[AnswerWarning]
) -> dict[str, str]:
    """Tells log, trace and `Server-Timing` of an answer; the headers that name its model and its warnings."""
    request.state.seconds = seconds
    request.state.model = f"{info.name}/{info.version}"
    headers = {"X-EBSeg-Model": request.state.model}
    if info.untrained:
        headers["X-EBSeg-Untrained"] = "true"
    if warnings:
        headers["X-EBSeg-Warnings"] = ", ".join(one.code for one in warnings)
    return headers


async def _cancel_if_gone(request: Request, task: asyncio.Task[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()
