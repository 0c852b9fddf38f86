"""Multipart forms as nearly every client writes them, read from a body that has arrived as a whole.

Starlette's parser takes a form apart as it arrives, with calls for every piece; a form that is regular in
every respect needs a few searches. Whatever is in any way unusual is left to that parser: the one form that
`read_form` itself calls wrong is one whose text is not UTF-8, which that parser would read as Latin-1.
"""

import re
from io import BytesIO

from starlette.datastructures import FormData, UploadFile

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


def read_form(content_type: str, body: bytes, *, max_files: int) -> FormData | None:
    """A form of text fields and files.

    Args:
        content_type: the request's header.
        body: all of it.
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
    if not body.startswith(first):
        return None
    at = len(first)
    items: list[tuple[str, str | UploadFile]] = []
    files = 0
    while body.startswith(b"\r\n", at):
        head_end = body.find(_HEAD_END, at, at + MOST_HEAD)
        head = _HEAD.fullmatch(body, at + 2, head_end) if head_end >= 0 else None
        start = head_end + len(_HEAD_END)
        end = body.find(border, start)
        if head is None or end < 0 or body.startswith(first, start) or len(items) == MOST_PARTS:
            return None
        name, data = head["name"].decode("ascii"), body[start:end]
        if head["file"] is not None:
            files += 1
            items.append((name, UploadFile(BytesIO(data), size=len(data), filename="")))
        else:
            try:
                items.append((name, data.decode("utf-8")))
            except UnicodeDecodeError:
                raise MalformedRequestError(f"the form field {name} is not UTF-8") from None
        at = end + len(border)
    whole = body[at:] in (b"--", b"--\r\n")
    return FormData(items) if whole and items and files <= max_files else None
