"""A request's body to a checked document and the picture's bytes.

The event loop only gathers the pieces of a body. They are put together and parsed on a picture thread, unless
a form is so small that handing it over would take longer.
"""

import codecs
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, ImmutableMultiDict, QueryParams, UploadFile
from starlette.requests import Request

from service.errors import (
    FieldProblem,
    InvalidRequestError,
    MalformedRequestError,
    UnsupportedMediaError,
    invalid,
)
from service.http.body import read_body
from service.http.form_fields import (
    IN_QUERY,
    KNOWN,
    PLAIN,
    REPEATED,
    document_of,
    filled,
    is_picture,
    problems_of_names,
    refuse_query,
)
from service.http.multipart import parsed_form, read_form
from service.observability.stages import stage
from service.runtime import HttpSide
from service.scheduling.host_memory import HostAccount
from service.schemas.field_problems import field_problems, json_trouble
from service.schemas.json_request import JsonSegmentRequest
from service.schemas.picture_text import picture_bytes
from service.schemas.segment import SegmentRequest

# A JSON value takes a comma and, parsed, a hundred bytes; without a bound the smallest values would make
# gigabytes of a body of megabytes. The longest sensible document has some ten thousand.
MOST_COMMAS = 200_000
PARSED = 3  # bytes that a byte of a JSON document takes while it is parsed, its own aside
MOST_FIELDS = 8192  # form fields; `classes` may come once a class
MOST_FILES = 2
SMALL_FORM = 1 << 17  # bytes; such a form is taken apart on the event loop, if it is regular
SHORT_TEXT = 1 << 12  # bytes; so much of it, beside the picture, is checked there, too
DOCUMENTS_KEPT = 256
MOST_SHOWN = 100  # characters of a media type that an error repeats
AS_FILE = "curl's -F sends the file a.jpg as image=@a.jpg"
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ONE_WAY = "give the image either in image, or by its url"
Document = TypeVar("Document", bound=BaseModel)


ReadPicture = Callable[[], bytes]
Fetch = Callable[[SegmentRequest, str], Awaitable[list[bytes]]]
Picture = ReadPicture | str  # a picture, or its URL
_Parsed = tuple[SegmentRequest, Picture]


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A checked request; `read_picture` gives the picture's bytes, once, and is slow.

    Attributes:
        seconds: by stage so far: fetch, of a picture that was named by its URL.
    """

    spec: SegmentRequest
    read_picture: ReadPicture
    seconds: Mapping[str, float] = field(default_factory=dict)


async def read_request(
    request: Request, service: HttpSide, memory: HostAccount, fetch: Fetch
) -> ParsedRequest:
    """Reads a segmentation request, and its picture from wherever it is.

    Args:
        request: whose body was not read.
        service: whose threads parse.
        memory: where the body's bytes are reserved as they come.
        fetch: gets a picture that the request names by its URL.

    Raises:
        HostMemoryError: others have the memory that the body needs.
        TooMuchMemoryError: alone it has more than there may be.
        UnsupportedMediaError: neither multipart, JSON nor a picture.
        MalformedRequestError: it says so, but is not.
        InvalidRequestError: fields are wrong.
        ServiceError: of `fetch`.
    """
    spec, picture = await _read(request, service, memory)
    if isinstance(picture, str):
        parsed = await fetched(spec, service, memory, fetch(spec, picture))
    else:
        parsed = ParsedRequest(spec, picture)
    memory.hold(0)
    return parsed


async def fetched(
    spec: SegmentRequest, service: HttpSide, memory: HostAccount, chunks: Awaitable[list[bytes]]
) -> ParsedRequest:
    """A request whose picture comes from its URL; its memory stays reserved.

    Args:
        spec: of the request.
        service: whose threads join the pieces.
        memory: where they are reserved.
        chunks: the pieces, on their way.

    Raises:
        ServiceError: what keeps them from coming.
    """
    began = time.perf_counter()
    with stage("fetch"):
        pieces = await chunks
    seconds = time.perf_counter() - began
    memory.hold(sum(map(len, pieces)))  # the picture, while its pieces are joined
    return ParsedRequest(spec, [await service.in_pool(_joined, pieces)].pop, {"fetch": seconds})


async def _read(request: Request, service: HttpSide, memory: HostAccount) -> _Parsed:
    """The request, whose memory is reserved still, and its picture or where that is."""
    media = media_type(request)
    refuse_encoded(request)
    if request.scope["query_string"] and media in ("application/json", "multipart/form-data"):
        refuse_query(request.query_params)
    if media == "application/json":
        chunks = await read_body(request, memory)
        memory.hold(PARSED * memory.nbytes)
        return await service.in_pool(_from_json, chunks)
    if media == "multipart/form-data":
        chunks = await read_body(request, memory)
        content_type = request.headers["content-type"]
        if memory.nbytes <= SMALL_FORM:
            form = read_form(content_type, chunks, max_files=MOST_FILES)
            image = None if form is None else form.get("image")
            text = memory.nbytes - (image.size or 0 if isinstance(image, UploadFile) else 0)
            if form is not None and text <= SHORT_TEXT:
                return _from_form(form)
        memory.hold(memory.nbytes)  # the form, while it is made of the body
        return await service.in_pool(_from_multipart, content_type, chunks)
    if is_picture(media):
        # the query first: a wrong one leaves the body unread
        query = request.scope["query_string"]
        spec = _known_query(query) if len(query) <= SHORT_TEXT else _from_query(query)
        chunks = await read_body(request, memory)
        memory.hold(memory.nbytes)  # the picture, while its pieces are joined
        short = memory.nbytes <= SMALL_FORM
        picture = _joined(chunks) if short else await service.in_pool(_joined, chunks)
        return spec, [picture].pop
    seen = f"is {media[:MOST_SHOWN]!r}" if media else "has no Content-Type"
    if media == "application/x-www-form-urlencoded":
        seen += f", as curl's -d and --data-binary say: {AS_FILE}, or add -H 'Content-Type: image/jpeg'"
    raise UnsupportedMediaError(
        "a request is multipart/form-data, application/json, or an image as image/jpeg or any other "
        f"image/..., with the rest in the query; this one {seen}"
    )


@asynccontextmanager
async def read_document(
    request: Request, service: HttpSide, schema: type[Document], most: int
) -> AsyncIterator[Document]:
    """Reads a body that is one JSON document; its memory is reserved as long as the context lives.

    Args:
        request: whose body was not read.
        service: whose threads parse.
        schema: of the document.
        most: bytes of the body.

    Raises:
        TooManyBytesError: it has more.
        UnsupportedMediaError, MalformedRequestError, InvalidRequestError: it is no such document.
        HostMemoryError: others have the memory that it needs.
    """
    if media_type(request) != "application/json":
        raise UnsupportedMediaError("this takes application/json")
    refuse_encoded(request)
    with closing(service.memory.open()) as memory:
        chunks = await read_body(request, memory, most=most)
        memory.hold(PARSED * memory.nbytes)
        yield await service.in_pool(validated, schema, b"".join(chunks))


def media_type(request: Request) -> str:
    """What a body says it is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refuse_encoded(request: Request) -> None:
    """Raises UnsupportedMediaError for a compressed body: only its own bytes would be bounded."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaError("a body is taken as it is, without a Content-Encoding")


def _from_json(chunks: list[bytes]) -> _Parsed:
    body = b"".join(chunks)
    chunks.clear()
    document = validated(JsonSegmentRequest, body)
    if document.image is not None and document.url is not None:
        raise invalid("url", _ONE_WAY)
    picture: ReadPicture | str | None = document.url
    if document.image is not None:
        picture = [decoded("image", document.image)].pop
    if picture is None:
        raise invalid("image", "is missing, and so is url")
    spec = SegmentRequest.model_construct(
        _fields_set=document.model_fields_set - {"image", "url"},
        **{name: getattr(document, name) for name in SegmentRequest.model_fields},
    )
    return spec, picture


def decoded(field: str, text: str) -> bytes:
    """A picture that travels as text.

    Raises:
        InvalidRequestError: it does not; names the field.
    """
    try:
        return picture_bytes(text)
    except ValueError as error:
        raise invalid(field, str(error)) from None


def whole_form(content_type: str, chunks: list[bytes], max_files: int) -> FormData:
    """The form that a body holds, whose pieces are let go of.

    Raises:
        MalformedRequestError: it is broken, or has more files or fields than it may.
    """
    form = read_form(content_type, chunks, max_files=max_files)
    if form is None:
        form = parsed_form(content_type, chunks, max_files=max_files, max_fields=MOST_FIELDS)
    chunks.clear()
    return form


def _from_multipart(content_type: str, chunks: list[bytes]) -> _Parsed:
    return _from_form(whole_form(content_type, chunks, MOST_FILES))


def _joined(chunks: list[bytes]) -> bytes:
    """A body, which is let go of."""
    body = b"".join(chunks)
    chunks.clear()
    return body


def _from_form(form: FormData) -> _Parsed:
    problems = problems_of_names(form, KNOWN)
    fields = filled(form)
    image, url = fields.get("image"), fields.get("url")
    if url is not None and isinstance(image, UploadFile) and not image.size:
        image = None  # a browser sends an empty file where none was chosen
    if image is not None and url is not None:
        problems.append(FieldProblem("url", _ONE_WAY))
    elif url is None and not isinstance(image, UploadFile):
        seen = "" if image is None else f" (a text came; {AS_FILE})"
        problems.append(FieldProblem("image", f"there is no image: send it as a file in this field{seen}"))
    if problems:
        raise InvalidRequestError(problems)
    spec = spec_of(fields)
    if isinstance(image, UploadFile):
        return spec, image.file.read
    if isinstance(url, UploadFile):
        raise invalid("url", "must be text, not a file")
    assert url is not None
    return spec, url


def _from_query(query: bytes) -> SegmentRequest:
    """What a query asks for, whose picture is the body.

    Raises:
        InvalidRequestError, MalformedRequestError: its fields are wrong.
    """
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except UnicodeDecodeError:
        raise MalformedRequestError("the query is not UTF-8") from None
    except ValueError:
        raise MalformedRequestError(f"the query has more than {MOST_FIELDS} fields") from None
    fields = QueryParams(pairs)
    if problems := problems_of_names(fields, IN_QUERY):
        raise InvalidRequestError(problems)
    return spec_of(filled(fields), "request")


_known_query = functools.lru_cache(maxsize=DOCUMENTS_KEPT)(_from_query)  # the same with every picture


def spec_of(form: ImmutableMultiDict[str, Any], request: str = "the part request") -> SegmentRequest:
    """What the fields of a form or a query ask for; its picture and unknown fields are not looked at.

    Args:
        form: the fields.
        request: what its field `request` is called in errors.

    Raises:
        InvalidRequestError, MalformedRequestError: fields are wrong.
    """
    fields = [name for name in (*REPEATED, *PLAIN) if name in form]
    document = form.get("request")
    if document is None:
        return validated(SegmentRequest, document_of(form))
    if fields:
        raise InvalidRequestError([FieldProblem(name, f"give it inside {request}") for name in fields])
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
        errors = error.errors(include_url=False, include_input=False)
        if isinstance(document, bytes) and document.startswith(_MARKS):
            raise MalformedRequestError(
                "the document begins with a byte order mark; send UTF-8 without one"
            ) from None
        if errors[0]["type"] == "json_invalid":
            raise MalformedRequestError(f"the document is no JSON: {json_trouble(errors[0])}") from None
        raise InvalidRequestError(field_problems(errors, schema)) from None
