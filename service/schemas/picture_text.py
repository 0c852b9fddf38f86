"""An image that travels as text: base64, or a `data:` URL (RFC 2397) of it."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

_LONGEST_HEAD = 200  # characters of a data URL before its comma
_SPACE = re.compile(rb"\s+")
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/=]")
_FILE_NAME = re.compile(rb"\.(?:jpe?g|png|webp|avif|hei[cf]|tiff?|bmp|gif)\Z", re.IGNORECASE)
_HOW = "send an image's bytes in base64, or as data:image/jpeg;base64,..."


def picture_bytes(text: str | bytes) -> bytes:
    """The image's bytes. Lines are taken; the media type of a URL is not, the content tells.

    Raises:
        ValueError: it is something else; says what was seen.
    """
    data = _ascii(text) if isinstance(text, str) else text
    if data[:5].lower() == b"data:":
        data = _content(data)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        lines = _SPACE.sub(b"", data)
    try:
        return base64.b64decode(lines, validate=True)
    except binascii.Error:
        raise ValueError(_what_is_wrong(lines)) from None


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ValueError(_unlike(text[error.start], error.start)) from None


def _content(url: bytes) -> bytes:
    """What stands after the comma of a data URL."""
    comma = url.find(b",", 0, _LONGEST_HEAD)
    if comma < 0 or not url[:comma].lower().endswith(b";base64"):
        raise ValueError("a data URL is taken in base64 only, as in data:image/jpeg;base64,...")
    content = url[comma + 1 :]
    return unquote_to_bytes(content) if b"%" in content else content


def _what_is_wrong(text: bytes) -> str:
    if re.match(rb"[a-z][a-z0-9+.-]{0,20}://", text, re.IGNORECASE):
        return f"this is a URL, which goes into the field url; {_HOW}"
    if _FILE_NAME.search(text[-_LONGEST_HEAD:]) is not None:
        return f"this is the name of a file; {_HOW}"
    foreign = _FOREIGN.search(text)
    if foreign is not None:
        return _unlike(foreign[0].decode("latin-1"), foreign.start())
    return f"must be base64; {len(text)} characters of it are no whole number of bytes: it was cut short"


def _unlike(character: str, place: int) -> str:
    also = ", which only the form for URLs has" if character in "-_" else ""
    return f"must be base64; character {place} is {character!r}{also}. {_HOW[0].upper()}{_HOW[1:]}"
