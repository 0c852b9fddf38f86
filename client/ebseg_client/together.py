"""Several pictures in one request, and again those that were refused for now."""

import time
from collections.abc import Generator, Sequence
from typing import Any

from ebseg_client import calls, parsing
from ebseg_client.errors import AnswerError, InputError, ProblemError, problem_error
from ebseg_client.exchange import Call, Reply, Retry, Send, Wait, exchange, json_of, may_help
from ebseg_client.parsing import read
from ebseg_client.requests import Classes, SegmentOptions, Sent
from ebseg_client.results import Segmentation

PictureResult = Segmentation | ProblemError | AnswerError


def call_of(
    pictures: Sequence[Sent], classes: Classes | None, options: SegmentOptions
) -> Call[list[PictureResult]]:
    """`POST /v1/segment/batch`; each picture has an answer or an error, in their order."""
    return Call(
        method="POST",
        path="/v1/segment/batch",
        body=calls.form_of(pictures, classes, options),
        parse=lambda response: _results(json_of(response), len(pictures)),
    )


def together(
    pictures: Sequence[Sent],
    classes: Classes | None,
    options: SegmentOptions,
    *,
    seconds: float,
    retry: Retry,
    request_id: str,
) -> Generator[Send | Wait, Reply, list[PictureResult]]:
    """Sends pictures in one request, then those again that the service had no room for, as `exchange` does.

    Args:
        pictures: one at least.
        classes, options: of all.
        seconds, retry, request_id: as of `exchange`.

    Raises:
        ClientError: of the whole request.
    """
    if not pictures:
        raise InputError("there is no image: give one at least")
    until = time.monotonic() + seconds
    results: dict[int, PictureResult] = {}
    waiting, attempt = list(range(len(pictures))), 0
    while True:
        attempt += 1
        call = call_of([pictures[at] for at in waiting], classes, options)
        left = until - time.monotonic()
        found = yield from exchange(call, seconds=left, retry=retry, request_id=request_id)
        results.update(zip(waiting, found, strict=True))
        for one in found:
            if isinstance(one, ProblemError | AnswerError):
                one.attempts, one.request_id = attempt, one.request_id or request_id
        waiting = [
            at for at in waiting if isinstance(one := results[at], ProblemError) and may_help(one, call)
        ]
        wait = retry.wait(attempt, None)
        if not waiting or attempt >= retry.attempts or time.monotonic() + wait >= until:
            return [results[at] for at in range(len(pictures))]
        yield Wait(wait)


def _results(document: Any, number: int) -> list[PictureResult]:
    if not isinstance(document, list) or len(document) != number:
        raise AnswerError(f"no responses to {number} images: is this an EBSeg service?")
    return [_result(one) for one in document]


def _result(entry: Any) -> PictureResult:
    try:
        if "answer" in entry:
            return read(parsing.segmentation, entry["answer"])
        return problem_error(int(entry["status"]), entry["problem"], "", None)
    except AnswerError as error:
        return error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return AnswerError(f"a response that no EBSeg service gives: {type(error).__name__} {error}")
