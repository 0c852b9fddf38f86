"""Whole HTTP requests, made before the load begins."""

import json
from collections.abc import Sequence

_BOUNDARY = b"ebseg-bench"


def segment_request(host: str, path: str, picture: bytes, names: Sequence[str], accept: str) -> bytes:
    """A whole multipart request: a picture and a JSON document with its classes."""
    document = json.dumps({"classes": list(names)}).encode()
    parts = [("request", "application/json", document), ("image", "image/jpeg", picture)]
    return post(host, path, parts, accept)


def post(host: str, path: str, parts: Sequence[tuple[str, str, bytes]], accept: str) -> bytes:
    """A whole multipart request.

    Args:
        host: of the Host header.
        path: of the resource.
        parts: name, media type and bytes of each.
        accept: the media type that is asked for.
    """
    pieces = []
    for name, media_type, data in parts:
        file = f'; filename="{name}"' if media_type.startswith("image/") else ""
        head = f'Content-Disposition: form-data; name="{name}"{file}\r\nContent-Type: {media_type}\r\n\r\n'
        pieces.append(b"--" + _BOUNDARY + b"\r\n" + head.encode() + data + b"\r\n")
    body = b"".join(pieces) + b"--" + _BOUNDARY + b"--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
