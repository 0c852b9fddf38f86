"""What the engine found, and what went wrong, as the Open Inference Protocol has it."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from starlette.responses import Response

from service.answer import Outcome
from service.engine import ModelInfo
from service.errors import FieldProblem, InvalidRequestError, problem, problem_response
from service.inference_protocol import MOST_PROBLEMS, Inference
from service.inference_schemas import (
    CLASS_NAMES,
    CONFIDENCE,
    HEADER,
    LABEL_MAP,
    TRAINED,
    InferenceAnswer,
    OutputTensor,
)

# Numbers of maps that one answer may hold as text: some ten bytes each, and some hundred nanoseconds.
MOST_JSON_NUMBERS = 1 << 22
JSON, BINARY = "application/json", "application/octet-stream"
_MAPS = (LABEL_MAP, CONFIDENCE)
_DTYPES = {"UINT16": "<u2", "FP32": "<f4", "BOOL": "?"}
_MARK = '"data":[]'  # where an output's elements go into the document


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceReply:
    """An answer's bytes and the headers that go with them, the version that made it, seconds by stage."""

    body: bytes
    media_type: str
    headers: dict[str, str]
    info: ModelInfo
    seconds: dict[str, float]


def check_size(inference: Inference, size: tuple[int, int], classes: int) -> None:
    """Raises InvalidRequestError if maps of this many rows and columns are too large for JSON."""
    maps = [wanted.tensor.name for wanted in inference.outputs if wanted.tensor in _MAPS and not wanted.binary]
    if len(maps) * size[0] * size[1] > MOST_JSON_NUMBERS:
        raise InvalidRequestError(
            [
                FieldProblem(
                    "outputs",
                    f"{' and '.join(maps)} of {size[0]} x {size[1]} are more than {MOST_JSON_NUMBERS} numbers; "
                    "ask for binary data, with the parameter binary_data of an output or binary_data_output "
                    "of the request",
                )
            ]
        )


def encode_inference(outcome: Outcome, inference: Inference) -> InferenceReply:
    """Encodes an answer; slow, for a picture thread.

    Raises:
        DeadlineExceededError: going on is in vain.
    """
    outcome.check()
    started = time.perf_counter()
    tensors, texts, binaries = [], [], []
    for wanted in inference.outputs:
        values = _values(outcome, wanted.tensor.name)
        tensor = {"name": wanted.tensor.name, "shape": list(values.shape), "datatype": wanted.tensor.datatype}
        if wanted.binary:
            binaries.append(_binary(values, wanted.tensor.datatype))
            tensor["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            texts.append(_text(values, outcome.check))
            tensor["data"] = []
        tensors.append(OutputTensor(**tensor))
    document = _filled(_document(outcome, inference, tensors), texts)
    return InferenceReply(
        body=b"".join([document, *binaries]),
        media_type=BINARY if binaries else JSON,
        headers={HEADER: str(len(document))} if binaries else {},
        info=outcome.info,
        seconds={**outcome.seconds, "encode": time.perf_counter() - started},
    )


def is_inference_path(path: str) -> bool:
    """Whether errors of this path are to be in the protocol's form."""
    return path == "/v2" or path.startswith("/v2/")


def error_response(error: Exception, request_id: str) -> Response:
    """The answer to an error: status and headers of the problem document, and its words in one string."""
    document = problem(error, request_id)
    text = document["detail"]
    if fields := document.get("errors"):
        told = [f"{field['field']}: {field['message']}" for field in fields[:MOST_PROBLEMS]]
        text = "; ".join([*told, *(["and more"] if len(fields) > MOST_PROBLEMS else [])])
    plain = problem_response(error, request_id)
    own = {name: value for name, value in plain.headers.items() if not name.startswith("content-")}
    return Response(json.dumps({"error": text}), plain.status_code, own, JSON)


def _values(outcome: Outcome, name: str) -> NDArray[Any]:
    result = outcome.result
    if name == LABEL_MAP.name:
        return result.labels
    if name == CONFIDENCE.name:
        return result.confidence
    if name == TRAINED.name:
        return np.array(result.trained, bool)
    assert name == CLASS_NAMES.name
    return np.array(outcome.vocabulary.names, object)


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


def _document(outcome: Outcome, inference: Inference, tensors: list[OutputTensor]) -> str:
    info = outcome.info
    parts: dict[str, Any] = {"model_name": info.name, "model_version": str(info.version), "outputs": tensors}
    if inference.id is not None:
        parts["id"] = inference.id
    if info.untrained:
        parts["parameters"] = {"untrained": True}
    return InferenceAnswer(**parts).model_dump_json(exclude_unset=True)


def _filled(document: str, texts: list[bytes]) -> bytes:
    """Puts the elements into the places that were left for them."""
    head, *tails = document.rsplit(_MARK, len(texts)) if texts else [document]
    parts = [head.encode()]
    for text, tail in zip(texts, tails, strict=True):
        parts += [b'"data":[', text, b"]", tail.encode()]
    return b"".join(parts)
