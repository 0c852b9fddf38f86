"""The pictures and requests of the load."""

import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.bench import picture_array
from model.vocabulary import Vocabulary
from service.bench.connection import STAMP

PICTURES = 4  # different ones, sent in turn
QUALITY = 90  # of the JPEGs
GRAIN = (
    6.0  # standard deviation of the noise, of 255; with it 640 x 480 pixels make some 90 kB, as a photo does
)
_BOUNDARY = b"ebseg-bench"
_COMMENT = b"\xff\xfe" + (2 + len(STAMP)).to_bytes(2, "big") + STAMP  # a JPEG comment


def pictures(width: int, height: int, count: int = PICTURES) -> list[NDArray[np.uint8]]:
    """Waves with the grain of a photo; RGB, uint8 [H, W, 3] each."""
    smooth = picture_array(height, width).astype(np.float32)
    chance = np.random.default_rng(0)
    return [
        np.clip(
            np.roll(smooth, 100 * index, (0, 1)) + chance.normal(0, GRAIN, (height, width, 1)), 0, 255
        ).astype(np.uint8)
        for index in range(count)
    ]


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A JPEG whose comment is `STAMP`: with a number in its place no two requests have the same bytes.

    A service that knows pictures again must run its model on each of them.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
    data = buffer.getvalue()
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    return data[:after_jfif] + _COMMENT + data[after_jfif:]


def class_names(count: int) -> list[str]:
    """So many class names."""
    names = Vocabulary.builtin("ade20k-847").names
    return (names + [f"thing number {index}" for index in range(count - len(names))])[:count]


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
