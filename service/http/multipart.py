"""Multipart forms, read from a body that has arrived as a whole: slow for a large one, for a picture thread.

Starlette's parser takes a form apart with calls for every piece; a form that is regular in every respect, as
nearly every client writes it, needs a few searches, and its file is copied once. Whatever is in any way
unusual is left to that parser: the one form that `read_form` itself calls wrong is one whose text is not
UTF-8, which that parser would read as Latin-1.
"""

import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from io import BytesIO
from itertools import accumulate, pairwise

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import MalformedRequestError

MOST_PARTS = 64
MOST_HEAD = 1024  # bytes of a part's head
_CONTENT_TYPE = re.compile(
    r"multipart/form-data; ?boundary=(\"?)([A-Za-z0-9'()+_,./:?-]{1,70})\1", re.IGNORECASE
)
# no header of another kind, none folded, nothing escaped
_HEAD = re.compile(
    rb"(?:content-type:[ -~]*\r\n)?"
    rb'content-disposition: ?form-data; ?name="(?P<name>[A-Za-z0-9_-]+)"'
    rb'(?P<file>; ?filename="[^"\\\x00-\x1f\x7f]*")?'
    rb"(?:\r\ncontent-(?:type|length):[ -~]*)*",
    re.IGNORECASE,
)
_HEAD_END = b"\r\n\r\n"


def read_form(content_type: str, chunks: Sequence[bytes], *, max_files: int) -> FormData | None:
    """A form of text fields and files.

    Args:
        content_type: the request's header.
        chunks: all of the body, in pieces of any length.
        max_files: a form with more is left to Starlette's parser, too, which says so.

    Returns:
        What Starlette's parser would make of it, file names aside; None for a form that is left to it.

    Raises:
        MalformedRequestError: a text field is not UTF-8.
    """
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None:
        return None
    first = b"--" + match[2].encode("ascii")
    border = b"\r\n" + first
    body = _Pieces(chunks)
    if body.cut(0, len(first)) != first:
        return None
    places = [-2, *body.find(border, MOST_PARTS)]  # as if a line's end stood before the first border
    items: list[tuple[str, str | UploadFile]] = []
    files = 0
    for begin, end in pairwise(places):
        begin += len(border)
        head_bytes, separator, _ = body.cut(begin, min(end, begin + MOST_HEAD)).partition(_HEAD_END)
        head = _HEAD.fullmatch(head_bytes, 2) if separator and head_bytes.startswith(b"\r\n") else None
        if head is None:
            return None
        data = body.cut(begin + len(head_bytes) + len(_HEAD_END), end)
        if data.startswith(first):
            return None
        name = head["name"].decode("ascii")
        if head["file"] is not None:
            files += 1
            items.append((name, UploadFile(BytesIO(data), size=len(data), filename="")))
        else:
            try:
                items.append((name, data.decode("utf-8")))
            except UnicodeDecodeError:
                raise MalformedRequestError(f"the form field {name} is not UTF-8") from None
    rest = places[-1] + len(border)
    whole = len(body) - rest <= len(b"--\r\n") and body.cut(rest, len(body)) in (b"--", b"--\r\n")
    return FormData(items) if whole and items and files <= max_files else None


def parsed_form(content_type: str, chunks: Sequence[bytes], *, max_files: int, max_fields: int) -> FormData:
    """What Starlette's parser makes of a form; arguments as of `read_form`.

    Raises:
        MalformedRequestError: it is broken, or has more files, fields or text than it may.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk

    headers = Headers({"content-type": content_type})
    border = parse_options_header(content_type)[1].get(b"boundary")
    if not border:
        raise MalformedRequestError(
            "the Content-Type names no boundary; HTTP clients add it where this header is left to them"
        )
    end = b""
    for chunk in reversed(chunks):
        end = chunk[-MOST_HEAD:] + end
        if len(end) >= MOST_HEAD:
            break
    if b"--" + border + b"--" not in end:
        raise MalformedRequestError("the form is cut short: its last boundary is missing")
    parsing = _InMemory(headers, stream(), max_files=max_files, max_fields=max_fields).parse()
    try:
        parsing.send(None)
    except StopIteration as done:
        return FormData([(name, _closed(value)) for name, value in done.value.multi_items()])
    except MultiPartException as error:
        raise MalformedRequestError(error.message) from None
    raise RuntimeError("the parser waits, and all of its form is there")


def _closed(value: str | UploadFile) -> str | UploadFile:
    """A file as `read_form` has it, in the place of one that somebody would have to close."""
    if isinstance(value, str):
        return value
    with value.file as file:
        data = file.read()
    return UploadFile(BytesIO(data), size=len(data), filename="")


class _InMemory(MultiPartParser):
    """With files in memory, where the body is already; those on a disk it would wait for."""

    spool_max_size = 1 << 40


class _Pieces:
    """Bytes in pieces, as if they were joined."""

    def __init__(self, chunks: Sequence[bytes]):
        self._chunks = [chunk for chunk in chunks if chunk]
        self._starts = [0, *accumulate(map(len, self._chunks))]

    def __len__(self) -> int:
        return self._starts[-1]

    def cut(self, begin: int, end: int) -> bytes:
        """A copy of a part; where it goes beyond the end it is shorter."""
        if len(self._chunks) == 1:
            return self._chunks[0][begin:end]
        parts = []
        at = max(0, bisect_right(self._starts, begin) - 1)
        while begin < end and at < len(self._chunks):
            start, chunk = self._starts[at], self._chunks[at]
            # whole chunks as they are: bytes of many megabytes are joined without the interpreter's lock
            parts.append(chunk[begin - start : end - start])
            at += 1
            begin = self._starts[at]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def find(self, wanted: bytes, most: int) -> list[int]:
        """Where it stands, from left to right; no more than so many places, and none that overlap."""
        places: list[int] = []
        reach = len(wanted) - 1
        tail = b""  # the end of what was searched, in which it may have begun
        for start, chunk in zip(self._starts, self._chunks, strict=False):
            seams = ((tail + chunk[:reach], start - len(tail)),) if tail else ()
            for text, offset in (*seams, (chunk, start)):
                at = text.find(wanted)
                while at >= 0:
                    if not places or offset + at >= places[-1] + len(wanted):
                        places.append(offset + at)
                    if len(places) == most:
                        return places
                    at = text.find(wanted, at + len(wanted))
            tail = (tail + chunk)[-reach:] if len(chunk) < reach else chunk[-reach:]
        return places
