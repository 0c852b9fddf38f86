"""A row's picture: its content, from the row itself, a file, a part of a file, or any fsspec URL."""

import io
import os
import stat
from collections.abc import Mapping
from typing import Any

from service.options import MAX_BYTES, MAX_PIXELS

REFUSED = "ebseg:refused"  # key of a row: why its picture is not to be read
READ_AT_ONCE = 4 << 20  # bytes of a file whose size is not known
BYTES_A_PIXEL = 8  # of a file without compression: four channels of 16 bits


class UnreadableError(Exception):
    """A picture whose bytes cannot be had; costs its own row."""


def most_bytes(max_pixels: int) -> int:
    """The largest picture file that is read; one of more bands or pages may need a higher max_pixels."""
    return max(MAX_BYTES, BYTES_A_PIXEL * max_pixels)


def content_of(row: Mapping[str, Any], most: int = BYTES_A_PIXEL * MAX_PIXELS) -> bytes:
    """The picture file's bytes.

    Args:
        row: `bytes`, or `path`, a local file or an fsspec URL; with `offset` and `size` a part of that file.
        most: bytes; of a larger file no more than these are read.

    Raises:
        UnreadableError: there are none, they are too many, or they cannot be read.
    """
    if row.get(REFUSED) is not None:
        raise UnreadableError(row[REFUSED])
    content = row.get("bytes")
    if content is not None:
        if not isinstance(content, bytes | bytearray | memoryview):
            raise UnreadableError(f"`bytes` must be bytes, got {type(content).__name__}")
        if memoryview(content).nbytes > most:
            raise _too_large("the image", most)
        return bytes(content)
    path = row.get("path")
    if path is None or not str(path):
        raise UnreadableError("the row has neither `path` nor `bytes`")
    try:
        offset, size = (None if one is None else int(one) for one in (row.get("offset"), row.get("size")))
    except (ValueError, TypeError, OverflowError):
        raise UnreadableError(f"{path}: offset and size must be whole numbers") from None
    if (size or 0) < 0:  # which would read all the rest
        raise UnreadableError(f"{path}: size must be 0 or more, got {size}")
    if size is not None and size > most:
        raise _too_large(f"{path} at {offset}", most)
    try:
        with _opened(str(path)) as file:
            if offset is not None and size is not None:
                file.seek(offset)
                content = file.read(size)
            else:
                content = _whole(file, path, most)
    except UnreadableError:
        raise
    except Exception as error:  # file systems raise what their libraries raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableError(f"{path} cannot be read: {reason}") from error
    if size is not None and len(content) != size:
        raise UnreadableError(f"{path} is cut short: {len(content)} of {size} bytes at {offset}")
    if len(content) > most:
        raise _too_large(path, most)
    return bytes(content)


def _too_large(what: object, most: int) -> UnreadableError:
    return UnreadableError(
        f"{what} is too large for an image: more than {most >> 20} MiB; a higher --max-pixels takes more"
    )


def _whole(file: Any, path: object, most: int) -> bytes:
    """All of a file, or one byte more than is taken."""
    size = getattr(file, "size", None)  # stores' files have one, and are read by one request
    if isinstance(file, io.BufferedReader):
        size = os.fstat(file.fileno()).st_size
    if isinstance(size, int) and size > most:
        raise _too_large(path, most)
    if isinstance(size, int) and size:
        content: bytes = file.read(size)
        return content
    parts, left = [], most + 1
    while left and (part := file.read(min(left, READ_AT_ONCE))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _opened(path: str) -> Any:
    if "://" in path:
        import fsspec

        return fsspec.open(path, "rb")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UnreadableError(f"{path} cannot be read: it is no file")  # a pipe may never end, nor a device
    return open(path, "rb")  # fsspec would take a :: in a name for a chain of URLs
