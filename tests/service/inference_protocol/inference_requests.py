"""Requests of the Open Inference Protocol, as bytes."""

import json
import struct
from typing import Any

from service.inference_protocol.protocol import Inference, read_inference
from service.schemas.inference_protocol import INPUTS
from tests.service.fakes import BASE64, PNG

Json = dict[str, Any]


def elements(*values: bytes) -> bytes:
    """BYTES as binary data."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def tensor(name: str, data: list[Any] | bytes, count: int | None = None, **changes: Any) -> Json:
    """An input as the document has it; binary data is taken out of it by `body`."""
    if isinstance(data, bytes):
        own: Json = {"parameters": {"binary_data_size": len(data)}, "binary": data}
    else:
        own = {"data": data}
    shape = [len(data) if count is None else count]
    return {"name": name, "shape": shape, "datatype": INPUTS[name].datatype, **own, **changes}


IMAGE = tensor("image", [BASE64])
CLASSES = tensor("classes", ["sky", "tree"])
BINARY_IMAGE = tensor("image", elements(PNG), 1)
BINARY_CLASSES = tensor("classes", elements(b"sky", b"tree"), 2)


def body(*inputs: Json, **fields: Any) -> tuple[bytes, str | None]:
    """A request, and its header if there is binary data."""
    plain = [{key: value for key, value in one.items() if key != "binary"} for one in inputs]
    document = json.dumps({"inputs": plain, **fields}).encode()
    binaries = [one["binary"] for one in inputs if "binary" in one]
    return document + b"".join(binaries), str(len(document)) if binaries else None


def read(content: bytes, header: str | None, version: int | None = None) -> Inference:
    return read_inference([content], header, model="fake", version=version)
