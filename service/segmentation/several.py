"""Several pictures of one request: each goes its own way, and has an answer and a status of its own."""

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from fastapi import Request

from service.http.middleware import count_error
from service.http.negotiate import PARTS, Form
from service.http.parsed_request import ParsedRequest, Picture, fetched
from service.http.parsed_several import ParsedSeveral
from service.http.problems import MEDIA_TYPE, problem_response
from service.runtime import HttpSide
from service.scheduling.host_memory import HostAccount
from service.schemas.segment import SegmentRequest
from service.segmentation.answer import Answer
from service.segmentation.answering import note, telling
from service.segmentation.door import Door
from service.segmentation.pipeline import segment
from service.segmentation.resolved import chosen_deadline


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """What one picture is answered with, and the memory that this holds."""

    status: int
    headers: dict[str, str]
    body: bytes
    memory: HostAccount | None = None


async def segment_all(
    request: Request,
    service: HttpSide,
    door: Door,
    parsed: ParsedSeveral,
    form: Form,
    used: Callable[[], AbstractAsyncContextManager[None]],
) -> list[PartAnswer]:
    """Segments all pictures at a time, so that they share batches.

    Args:
        request: for its id, its time and its log line.
        service: what decodes and encodes.
        door: to the engine.
        parsed: the pictures.
        form: of each answer.
        used: counts one more request of the caller's key, for each picture but the first.

    Returns:
        In the pictures' order; one that fails has its error, and changes no other.
    """
    accounts = [service.memory.open() for _ in parsed.pictures]
    try:
        ways = [
            _segment_one(
                request, service, door, parsed.spec, picture, form, memory, used if number else nullcontext
            )
            for number, (picture, memory) in enumerate(zip(parsed.pictures, accounts, strict=True))
        ]
        return list(await asyncio.gather(*ways))
    except BaseException:
        for memory in accounts:
            memory.close()
        raise


async def _segment_one(
    request: Request,
    service: HttpSide,
    door: Door,
    spec: SegmentRequest,
    picture: Picture,
    form: Form,
    memory: HostAccount,
    used: Callable[[], AbstractAsyncContextManager[None]],
) -> PartAnswer:
    state = request.state
    try:
        async with used():
            answer = await _answer(request, service, door, spec, picture, form, memory)
        memory.keep(len(answer.body))
        headers = note(request, answer.info, answer.seconds, answer.warnings)
        return PartAnswer(200, {"Content-Type": answer.media_type, **headers}, answer.body, memory)
    except Exception as error:
        memory.close()
        count_error(error, service.metrics)
        refusal = problem_response(error, state.request_id)
        kept = {name.title(): value for name, value in refusal.headers.items() if name != "content-length"}
        return PartAnswer(refusal.status_code, kept, bytes(refusal.body))


async def _answer(
    request: Request,
    service: HttpSide,
    door: Door,
    spec: SegmentRequest,
    picture: Picture,
    form: Form,
    memory: HostAccount,
) -> Answer:
    state = request.state
    if isinstance(picture, str):
        deadline, _ = chosen_deadline(spec, service.settings, state.since)
        chunks = service.remote_pictures.fetch(picture, memory, deadline)
        one = await fetched(spec, service, memory, chunks)
    else:
        one = ParsedRequest(spec, picture)
    async with door.admit(memory) as place:
        return await segment(service, door, one, place, form, state.request_id, state.since, telling(request))


def joined(answers: list[PartAnswer], parts: bool, memory: HostAccount) -> tuple[bytes, str]:
    """One body of all answers, and its media type.

    Args:
        answers: whose memory is given back.
        parts: whether as multipart/mixed; as a JSON array if not, whose answers are JSON.
        memory: where the body is reserved.

    Raises:
        HostMemoryError, TooMuchMemoryError: as of `HostAccount.take`.
    """
    try:
        memory.hold(sum(len(answer.body) for answer in answers))
        if parts:
            boundary = os.urandom(16).hex()
            pieces = [piece for answer in answers for piece in _part(answer, boundary)]
            body = b"".join([*pieces, f"--{boundary}--\r\n".encode()])
            return body, f"{PARTS}; boundary={boundary}"
        return b"[" + b",".join(map(_element, answers)) + b"]", "application/json"
    finally:
        for answer in answers:
            if answer.memory is not None:
                answer.memory.close()


def _part(answer: PartAnswer, boundary: str) -> tuple[bytes, bytes, bytes]:
    headers = {**answer.headers, "X-Status": str(answer.status), "Content-Length": str(len(answer.body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"--{boundary}\r\n{head}\r\n".encode(), answer.body, b"\r\n"


def _element(answer: PartAnswer) -> bytes:
    name = "problem" if answer.headers["Content-Type"] == MEDIA_TYPE else "answer"
    return json.dumps({"status": answer.status}).encode()[:-1] + f', "{name}": '.encode() + answer.body + b"}"
