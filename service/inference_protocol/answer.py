"""What the engine found, as the Open Inference Protocol has it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from model.confidence.caution import AnswerWarning
from service.errors import FieldProblem, InvalidRequestError
from service.inference_protocol.protocol import Inference
from service.scheduling.engine import ModelInfo
from service.schemas.inference_protocol import (
    CLASS_NAMES,
    CONFIDENCE,
    HEADER,
    LABEL_MAP,
    TRAINED,
)
from service.segmentation.answer import SegmentationResult

# Numbers of maps that one answer may hold as text: some ten bytes each, and some hundred nanoseconds.
MOST_JSON_NUMBERS = 1 << 22
JSON, BINARY = "application/json", "application/octet-stream"
_MAPS = (LABEL_MAP, CONFIDENCE)
_DTYPES = {"UINT16": "<u2", "FP32": "<f4", "BOOL": "?"}
_MARK = '"data":[]'  # where an output's elements go into the document


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceReply:
    """An answer's bytes and headers, the version that made it, seconds by stage, and reasons to doubt it."""

    body: bytes
    media_type: str
    headers: dict[str, str]
    info: ModelInfo
    seconds: dict[str, float]
    warnings: tuple[AnswerWarning, ...] = ()


def check_size(inference: Inference, size: tuple[int, int], classes: int) -> None:
    """Raises InvalidRequestError if maps of this many rows and columns are too large for JSON."""
    maps = [
        wanted.tensor.name for wanted in inference.outputs if wanted.tensor in _MAPS and not wanted.binary
    ]
    if len(maps) * size[0] * size[1] > MOST_JSON_NUMBERS:
        message = (
            f"{' and '.join(maps)} of {size[0]} x {size[1]} are more than {MOST_JSON_NUMBERS} numbers, too "
            "many for JSON; ask for binary data, by binary_data of an output or binary_data_output "
            "of the request"
        )
        raise InvalidRequestError([FieldProblem("outputs", message)])


def encode_inference(segmentation: SegmentationResult, inference: Inference) -> InferenceReply:
    """Encodes an answer; slow, for a picture thread.

    Raises:
        DeadlineExceededError: going on is in vain.
    """
    segmentation.check()
    started = time.perf_counter()
    tensors, binaries = [], []
    for wanted in inference.outputs:
        tensor = wanted.tensor
        values = _values(segmentation, tensor.name)
        described = {"name": tensor.name, "shape": values.shape, "datatype": tensor.datatype}
        if wanted.binary:
            binaries.append(_binary(values, tensor.datatype))
            tensors.append(to_json({**described, "parameters": {"binary_data_size": len(binaries[-1])}}))
        else:
            tensors.append(_with(described, "data", _text(values, segmentation.check)))
    document = _with(_described(segmentation, inference), "outputs", b",".join(tensors))
    return InferenceReply(
        body=b"".join([document, *binaries]),
        media_type=BINARY if binaries else JSON,
        headers={HEADER: str(len(document))} if binaries else {},
        info=segmentation.info,
        seconds={**segmentation.seconds, "encode": time.perf_counter() - started},
        warnings=segmentation.warnings,
    )


def _values(segmentation: SegmentationResult, name: str) -> NDArray[Any]:
    result = segmentation.result
    if name == LABEL_MAP.name:
        return result.labels
    if name == CONFIDENCE.name:
        return result.confidence
    if name == TRAINED.name:
        return np.array(segmentation.trained, bool)
    assert name == CLASS_NAMES.name
    return np.array(segmentation.names, object)


def _binary(values: NDArray[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return values.astype(_DTYPES[datatype], copy=False).tobytes()
    elements = [text.encode() for text in values]
    return b"".join(part for one in elements for part in (len(one).to_bytes(4, "little"), one))


def _text(values: NDArray[Any], check: Callable[[], None]) -> bytes:
    """The elements with commas between, row by row: a list of all numbers at once would take gigabytes."""

    def rows() -> Iterator[bytes]:
        for row in np.atleast_2d(values):
            check()
            yield to_json(row.tolist())[1:-1]

    return b",".join(rows())


def _described(segmentation: SegmentationResult, inference: Inference) -> dict[str, Any]:
    """All of `InferenceAnswer` but its outputs."""
    info = segmentation.info
    parts: dict[str, Any] = {"model_name": info.name, "model_version": str(info.version)}
    if inference.id is not None:
        parts["id"] = inference.id
    background = segmentation.background
    parameters: dict[str, Any] = {"threshold": background.least, "threshold_source": background.source}
    if info.untrained:
        parameters["untrained"] = True
    if segmentation.warnings:
        parameters["warnings"] = " ".join(one.message for one in segmentation.warnings)
    return parts | {"parameters": parameters}


def _with(document: dict[str, Any], field: str, elements: bytes) -> bytes:
    """The document as JSON, with one more field: a list whose elements are JSON already."""
    return to_json(document)[:-1] + b',"' + field.encode() + b'":[' + elements + b"]}"
