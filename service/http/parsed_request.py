"""A request's body to a checked document and the picture's bytes.

Large multipart bodies go to spooled files as they arrive; the picture is only read from there on a picture
thread. JSON is parsed there too, unless it is so short that handing it over would take longer.
"""

import base64
import binascii
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from service.errors import (
    FieldProblem,
    InvalidRequestError,
    MalformedRequestError,
    UnsupportedMediaError,
    field_problems,
)
from service.http.form_fields import PLAIN, REPEATED, document_of
from service.http.multipart import read_form
from service.runtime import Service
from service.scheduling.host_memory import HostAccount
from service.schemas.segment import JsonSegmentRequest, SegmentRequest

# A JSON value takes a comma and, parsed, a hundred bytes; without a bound the smallest values would make
# gigabytes of a body of megabytes. The longest sensible document has some ten thousand.
MOST_COMMAS = 200_000
MOST_FIELDS = 2048  # form fields; `classes` may come once a class
MOST_FILES = 2
SMALL_FORM = 1 << 18  # bytes; such a form is taken apart on the event loop, if it is regular
SHORT_TEXT = 1 << 12  # bytes; so much of it, beside the picture, is checked there, too
DOCUMENTS_KEPT = 256
ONCE = ("image", "request", *PLAIN)
KNOWN = frozenset((*ONCE, *REPEATED))
Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A checked request; `read_picture` gives the picture's bytes, once, and is slow."""

    spec: SegmentRequest
    read_picture: Callable[[], bytes]


@asynccontextmanager
async def read_request(
    request: Request, service: Service, memory: HostAccount
) -> AsyncIterator[ParsedRequest]:
    """Reads a segmentation request; its spooled files live as long as the context.

    Args:
        request: whose body was not read.
        service: whose threads parse.
        memory: where the body's bytes are reserved as they come.

    Raises:
        HostMemoryError: others have the memory that the body needs.
        RequestTooLargeError: alone it has more than there may be.
        UnsupportedMediaError: neither multipart nor JSON.
        MalformedRequestError: it says so, but is not.
        InvalidRequestError: fields are wrong.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    refuse_encoded(request)
    request = counted(request, memory)
    if media == "application/json":
        # not request.body(), which would keep the bytes for as long as the request lasts
        chunks = [chunk async for chunk in request.stream()]
        yield await service.in_pool(_from_json, chunks)
    elif media == "multipart/form-data":
        body = await _small_body(request)
        form = read_form(request.headers["content-type"], body, max_files=MOST_FILES) if body else None
        if form is not None:
            image = form.get("image")
            text = len(body) - (image.size or 0 if isinstance(image, UploadFile) else 0)
            yield _from_form(form) if text <= SHORT_TEXT else await service.in_pool(_from_form, form)
            return
        again = Request(request.scope, _once(body)) if body else request
        async with again.form(max_files=MOST_FILES, max_fields=MOST_FIELDS) as form:
            yield await service.in_pool(_from_form, form)
    else:
        raise UnsupportedMediaError("a request is multipart/form-data or application/json")


def counted(request: Request, memory: HostAccount) -> Request:
    """The same request, whose body's bytes are reserved as they come."""

    async def receive() -> Message:
        message = await request.receive()
        memory.take(len(message.get("body", b"")))
        return message

    return Request(request.scope, receive)


def refuse_encoded(request: Request) -> None:
    """Raises UnsupportedMediaError for a compressed body: only its own bytes would be bounded."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError("a body is taken as it is, without a Content-Encoding")


async def _small_body(request: Request) -> bytes:
    """The body, if it announces that it is small; else nothing, and it is still to be read."""
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal() or int(announced) > SMALL_FORM:
        return b""
    return b"".join([chunk async for chunk in request.stream()])


def _once(body: bytes) -> Receive:
    """What a request is read from again."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _from_json(chunks: list[bytes]) -> ParsedRequest:
    body = b"".join(chunks)
    chunks.clear()
    document = validated(JsonSegmentRequest, body)
    try:
        picture = base64.b64decode(document.image, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequestError([FieldProblem("image", "must be base64")]) from None
    spec = SegmentRequest.model_construct(
        _fields_set=document.model_fields_set - {"image"},
        **{name: getattr(document, name) for name in SegmentRequest.model_fields},
    )
    return ParsedRequest(spec, [picture].pop)


def _from_form(form: FormData) -> ParsedRequest:
    given = [name for name, _ in form.multi_items()]
    problems = [FieldProblem(name, "unknown field") for name in dict.fromkeys(given) if name not in KNOWN]
    if len(given) != len(form):
        problems += [FieldProblem(name, "given more than once") for name in ONCE if given.count(name) > 1]
    image = form.get("image")
    if not isinstance(image, UploadFile):
        problems.append(FieldProblem("image", "missing: send the picture as a file part of this name"))
    if problems or not isinstance(image, UploadFile):
        raise InvalidRequestError(problems)
    file = image.file
    return ParsedRequest(_spec(form), file.read)


def _spec(form: FormData) -> SegmentRequest:
    fields = [name for name in (*REPEATED, *PLAIN) if name in form]
    document = form.get("request")
    if document is None:
        return validated(SegmentRequest, document_of(form))
    if fields:
        raise InvalidRequestError([FieldProblem(name, "give it inside the part request") for name in fields])
    body = document.file.read() if isinstance(document, UploadFile) else document.encode()
    return _known(body) if len(body) <= SHORT_TEXT else validated(SegmentRequest, body)


@functools.lru_cache(maxsize=DOCUMENTS_KEPT)  # callers send the same document with every picture
def _known(body: bytes) -> SegmentRequest:
    return validated(SegmentRequest, body)


def validated(schema: type[Document], document: bytes | dict[str, Any]) -> Document:
    """A checked document.

    Raises:
        MalformedRequestError: no JSON, or far too many values.
        InvalidRequestError: fields are wrong.
    """
    try:
        if isinstance(document, dict):
            return schema.model_validate(document)
        if document.count(b",") > MOST_COMMAS:
            raise MalformedRequestError("the document holds too many values")
        return schema.model_validate_json(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise MalformedRequestError(f"the document is no JSON: {errors[0]['msg']}") from None
        raise InvalidRequestError(field_problems(errors)) from None
