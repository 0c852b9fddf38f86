"""Whole HTTP requests as bytes: for both generators of load, and for tests of the wire."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SEGMENT = "/v1/segment"
BOUNDARY = "ebseg-bench"


def request(
    method: str, path: str, body: bytes = b"", *, host: str = "localhost", headers: Mapping[str, str]
) -> bytes:
    """A whole request; its Content-Length comes last."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def form(parts: Sequence[tuple[str, str, bytes]], boundary: str = BOUNDARY) -> tuple[str, bytes]:
    """A multipart form: its Content-Type and its body.

    Args:
        parts: name, media type and bytes of each; without a media type it is a plain field.
        boundary: in none of the bytes.
    """
    border = b"--" + boundary.encode()
    pieces = []
    for name, media_type, data in parts:
        file = f'; filename="{name}"' if media_type.startswith("image/") else ""
        head = f'Content-Disposition: form-data; name="{name}"{file}\r\n'
        head += f"Content-Type: {media_type}\r\n" if media_type else ""
        pieces.append(border + b"\r\n" + head.encode() + b"\r\n" + data + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(pieces) + border + b"--\r\n"


def segment_request(
    picture: bytes,
    document: Mapping[str, Any],
    *,
    accept: str,
    host: str = "localhost",
    path: str = SEGMENT,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A whole multipart request: a JPEG, as far as its header tells, and a JSON document.

    Args:
        picture: the file.
        document: of the request.
        accept: the media type that is asked for.
        host, path: where it goes.
        headers: further ones.
    """
    text = json.dumps(document).encode()
    content_type, body = form([("request", "application/json", text), ("image", "image/jpeg", picture)])
    own = {"Accept": accept, **(headers or {}), "Content-Type": content_type}
    return request("POST", path, body, host=host, headers=own)
