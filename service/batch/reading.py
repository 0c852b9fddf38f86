"""A row's picture: its content, from the row itself, a file, a part of a file, or any fsspec URL."""

import os
import stat
from collections.abc import Mapping
from typing import Any


class UnreadableError(Exception):
    """A picture whose bytes cannot be had; costs its own row."""


def content_of(row: Mapping[str, Any]) -> bytes:
    """The picture file's bytes.

    Args:
        row: `bytes`, or `path`, a local file or an fsspec URL; with `offset` and `size` a part of that file.

    Raises:
        UnreadableError: there are none, or they cannot be read.
    """
    content = row.get("bytes")
    if content is not None:
        if not isinstance(content, bytes | bytearray | memoryview):
            raise UnreadableError(f"`bytes` must be bytes, got {type(content).__name__}")
        return bytes(content)
    path = row.get("path")
    if path is None or not str(path):
        raise UnreadableError("the row has neither `path` nor `bytes`")
    offset, size = row.get("offset"), row.get("size")
    try:
        with _opened(str(path)) as file:
            if offset is not None and size is not None:
                file.seek(int(offset))
                content = file.read(int(size))
            else:
                content = file.read()
    except UnreadableError:
        raise
    except Exception as error:  # file systems raise what their libraries raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableError(f"{path} cannot be read: {reason}") from error
    if size is not None and len(content) != int(size):
        raise UnreadableError(f"{path} is cut short: {len(content)} of {size} bytes at {offset}")
    return bytes(content)


def _opened(path: str) -> Any:
    if "://" in path:
        import fsspec

        return fsspec.open(path, "rb")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UnreadableError(f"{path} cannot be read: it is no file")  # a pipe may never end, nor a device
    return open(path, "rb")  # fsspec would take a :: in a name for a chain of URLs
