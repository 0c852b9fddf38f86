"""An inference request of the Open Inference Protocol, from bytes to what the pipeline takes.

The body is a JSON document, and behind it the binary data of those inputs that say so by
`binary_data_size`, in their order. BYTES elements have 4 bytes of length (little-endian) before each. In
JSON they are strings; a picture, which no string can hold, is base64 there.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from model.errors import VocabularyError
from model.vocabulary.templates import resolve
from service.errors import FieldProblem, InvalidRequestError, MalformedRequestError
from service.http.inference_errors import MOST_PROBLEMS
from service.http.parsed_request import MOST_COMMAS, ParsedRequest
from service.inference_protocol.input import Input
from service.schemas.balance import BalanceSpec
from service.schemas.classes import ClassEntry
from service.schemas.field_problems import field_problems, json_trouble
from service.schemas.inference_protocol import (
    CLASSES,
    HEADER,
    IMAGE,
    INPUTS,
    LABEL_MAP,
    OUTPUTS,
    TEMPLATES,
    THRESHOLD,
    InferenceRequest,
    RequestParameters,
    Tensor,
)
from service.schemas.segment import Background, LongSide, SegmentRequest
from service.schemas.tiling import TilingSpec

_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for, and whether as binary data."""

    tensor: Tensor
    binary: bool


@dataclass(frozen=True, slots=True)
class Inference:
    """A checked request.

    Attributes:
        id: the client's name for it.
        parsed: for the pipeline.
        outputs: in the order of the answer.
    """

    id: str | None
    parsed: ParsedRequest
    outputs: tuple[Wanted, ...]


def read_inference(chunks: list[bytes], header: str | None, *, model: str, version: int | None) -> Inference:
    """Reads a request; slow, for a picture thread.

    Args:
        chunks: the body; emptied, so that it lives no longer than it is needed.
        header: what `Inference-Header-Content-Length` says, if it is there.
        model: of the path.
        version: of the path, if it has one.

    Raises:
        MalformedRequestError: it cannot be read; the message says where it goes wrong.
        InvalidRequestError, VocabularyError: it can, but a value cannot be used.
    """
    body = b"".join(chunks)
    chunks.clear()
    document, behind = _split(body, header)
    request = _parsed(document)
    if request.model_name not in (None, model):
        raise MalformedRequestError(f"model_name must be left out, or be the path's: {model}")
    parameters = request.parameters or RequestParameters()
    inputs = _by_name(request, _binary_data(request, behind, header), parameters.vocabulary)
    image = inputs[IMAGE.name].elements()
    spec = SegmentRequest.model_construct(
        model=model,
        version=version,
        timeout_ms=_timeout_ms(parameters),
        vocabulary=parameters.vocabulary,
        balance=None if parameters.mean is None else BalanceSpec(mean=parameters.mean),
        output_size=None if parameters.long_side is None else LongSide(long_side=parameters.long_side),
        tiling=_tiling(parameters),
        **_optional(inputs),
    )
    return Inference(request.id, ParsedRequest(spec, image.pop), _outputs(request))


def _split(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    """The document, and what comes behind it."""
    if header is None:
        return body, memoryview(b"")
    if not _DECIMAL.fullmatch(header):
        raise MalformedRequestError(
            f"{HEADER} must be a whole number: the length of the JSON document, bytes"
        )
    length = int(header)
    if length > len(body):
        raise MalformedRequestError(f"{HEADER} is {length}, but the body has {len(body)} bytes")
    return body[:length], memoryview(body)[length:]


def _parsed(document: bytes) -> InferenceRequest:
    if document.count(b",") > MOST_COMMAS:
        raise MalformedRequestError("the document holds too many values")
    try:
        return InferenceRequest.model_validate_json(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise MalformedRequestError(
                f"the document is no JSON: {json_trouble(errors[0])}; {HEADER} must tell where it "
                "ends if binary data comes behind it"
            ) from None
        problems = field_problems(errors[:MOST_PROBLEMS], InferenceRequest)
        raise MalformedRequestError("; ".join(map(str, problems))) from None


def _binary_data(
    request: InferenceRequest, behind: memoryview, header: str | None
) -> list[memoryview | None]:
    """For each input its part of what comes behind the document; None if it has none."""
    parts: list[memoryview | None] = []
    for index, given in enumerate(request.inputs):
        size = given.said.binary_data_size
        if size is None:
            parts.append(None)
            continue
        if header is None:
            raise MalformedRequestError(f"inputs.{index}: binary data needs the header {HEADER}")
        if size > len(behind):
            raise MalformedRequestError(
                f"inputs.{index}: binary_data_size is {size}, but the body has {len(behind)} bytes left"
            )
        parts.append(behind[:size])
        behind = behind[size:]
    if len(behind):
        raise MalformedRequestError(f"{len(behind)} bytes at the body's end belong to no input")
    return parts


def _by_name(
    request: InferenceRequest, parts: list[memoryview | None], vocabulary: str | None
) -> dict[str, Input]:
    """The inputs, after a look at names, types, shapes, and whether all that are needed are there."""
    inputs: dict[str, Input] = {}
    for index, (given, binary) in enumerate(zip(request.inputs, parts, strict=True)):
        tensor = INPUTS.get(given.name)
        if tensor is None:
            raise MalformedRequestError(
                f"inputs.{index}: there is no input {given.name!r}; there are {', '.join(INPUTS)}"
            )
        one = Input(f"inputs.{index} ({tensor.name})", tensor, given, binary)
        if tensor.name in inputs:
            raise one.malformed("is there twice")
        one.check()
        inputs[tensor.name] = one
    if vocabulary is not None and CLASSES.name in inputs:
        raise MalformedRequestError("give either the input classes or the parameter vocabulary")
    needed = [tensor for tensor in INPUTS.values() if tensor.required]
    if vocabulary is not None:
        needed.remove(CLASSES)
    missing = [tensor.name for tensor in needed if tensor.name not in inputs]
    if missing:
        raise MalformedRequestError(f"inputs: {' and '.join(missing)} must be there")
    return inputs


def _optional(inputs: dict[str, Input]) -> dict[str, Any]:
    """Fields of the request that only some have."""
    fields: dict[str, Any] = {}
    if CLASSES.name in inputs:
        fields["classes"] = [ClassEntry(name=name) for name in inputs[CLASSES.name].strings()]
    if TEMPLATES.name in inputs:
        templates = inputs[TEMPLATES.name].strings()
        try:
            fields["templates"] = resolve(templates[0] if len(templates) == 1 else templates)
        except VocabularyError as error:
            raise InvalidRequestError([FieldProblem(TEMPLATES.name, str(error))]) from None
    if THRESHOLD.name in inputs:
        threshold = inputs[THRESHOLD.name].number()
        if not 0 <= threshold <= 1:
            raise InvalidRequestError([FieldProblem(THRESHOLD.name, "must be between 0 and 1")])
        fields["background"] = Background(threshold=threshold)
    return fields


def _timeout_ms(parameters: RequestParameters) -> int | None:
    microseconds = parameters.timeout
    return -(-microseconds // 1000) if microseconds else None  # rounded up


def _tiling(parameters: RequestParameters) -> TilingSpec | None:
    if parameters.tile_size is None:
        return None
    return TilingSpec(size=parameters.tile_size, overlap=parameters.tile_overlap)


def _outputs(request: InferenceRequest) -> tuple[Wanted, ...]:
    binary = request.parameters is not None and request.parameters.binary_data_output
    wanted: dict[str, Wanted] = {}
    for index, given in enumerate(request.outputs or []):
        tensor = OUTPUTS.get(given.name)
        if tensor is None:
            raise MalformedRequestError(
                f"outputs.{index}: there is no output {given.name!r}; there are {', '.join(OUTPUTS)}"
            )
        if tensor.name in wanted:
            raise MalformedRequestError(f"outputs.{index} ({tensor.name}): is there twice")
        own = None if given.parameters is None else given.parameters.binary_data
        wanted[tensor.name] = Wanted(tensor, binary if own is None else own)
    return tuple(wanted.values()) or (Wanted(LABEL_MAP, binary),)
