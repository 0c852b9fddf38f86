"""An inference request of the Open Inference Protocol, from bytes to what the pipeline takes.

The body is a JSON document, and behind it the binary data of those inputs that say so by
`binary_data_size`, in their order. BYTES elements have 4 bytes of length (little-endian) before each. In
JSON they are strings; a picture, which no string can hold, is base64 there.
"""

import base64
import binascii
import math
import re
import struct
from dataclasses import dataclass

from pydantic import ValidationError

from model.errors import VocabularyError
from model.templates import resolve
from model.vocabulary import MAX_CLASSES
from service.errors import FieldProblem, InvalidRequestError, MalformedRequestError, field_problems
from service.inference_schemas import (
    CLASSES,
    HEADER,
    IMAGE,
    INPUTS,
    LABEL_MAP,
    OUTPUTS,
    TEMPLATES,
    THRESHOLD,
    InferenceRequest,
    InputParameters,
    RequestInput,
    RequestParameters,
    Tensor,
)
from service.intake import MOST_COMMAS, Intake
from service.schemas import Background, ClassEntry, SegmentRequest

MOST_PROBLEMS = 5  # that an error tells of
_DECIMAL = re.compile(r"[0-9]{1,18}", re.ASCII)
_LENGTH = struct.Struct("<I")  # before each element of BYTES
_FP32 = struct.Struct("<f")
_NO_PARAMETERS = InputParameters()


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
        intake: for the pipeline.
        outputs: in the order of the answer.
    """

    id: str | None
    intake: Intake
    outputs: tuple[Wanted, ...]


def read_inference(
    chunks: list[bytes], header: str | None, *, model: str, version: int | None, max_timeout_ms: int
) -> Inference:
    """Reads a request; slow, for a picture thread.

    Args:
        chunks: the body; emptied, so that it lives no longer than it is needed.
        header: what `Inference-Header-Content-Length` says, if it is there.
        model: of the path.
        version: of the path, if it has one.
        max_timeout_ms: the longest time that a request may ask for.

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
    inputs = _by_name(request, _binary_data(request, behind, header))
    image = inputs[IMAGE.name].elements()
    spec = SegmentRequest.model_construct(
        classes=[ClassEntry(name=name) for name in inputs[CLASSES.name].strings()],
        model=model,
        version=version,
        timeout_ms=_timeout_ms(request.parameters, max_timeout_ms),
        **_optional(inputs),
    )
    return Inference(request.id, Intake(spec, image.pop), _outputs(request))


@dataclass(frozen=True, slots=True)
class _Input:
    """An input with its data.

    Attributes:
        place: where it is, for errors.
        tensor: which of ours it is.
        given: what the document says of it.
        binary: its data, if it is not in the document.
    """

    place: str
    tensor: Tensor
    given: RequestInput
    binary: memoryview | None

    def elements(self) -> list[bytes]:
        """The elements of BYTES."""
        count = math.prod(self.given.shape)
        if count > MAX_CLASSES:
            raise self._malformed(f"at most {MAX_CLASSES} elements are taken")
        elements = self._from_json(count) if self.binary is None else _elements(self, self.binary, count)
        if self._content_type() == "base64":
            return [self._decoded(element) for element in elements]
        return elements

    def strings(self) -> list[str]:
        """The elements of BYTES that hold text."""
        try:
            return [element.decode() for element in self.elements()]
        except UnicodeDecodeError:
            raise self._malformed("must be UTF-8") from None

    def number(self) -> float:
        """The one element of FP32."""
        if self.binary is None:
            (value,) = self._data(1)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self._malformed("data must hold numbers")
            return value
        if len(self.binary) != _FP32.size:
            raise self._malformed(f"binary_data_size must be {_FP32.size}, the size of one FP32")
        value = _FP32.unpack(self.binary)[0]
        assert isinstance(value, float)
        return value

    def _from_json(self, count: int) -> list[bytes]:
        elements = self._data(count)
        if not all(isinstance(element, str) for element in elements):
            raise self._malformed("data must be a flat list of strings")
        return [element.encode() for element in elements]

    def _data(self, count: int) -> list[object]:
        data = self.given.data or []
        if len(data) != count:
            raise self._malformed(f"the shape has {count} elements, and data {len(data)}")
        return data

    def _content_type(self) -> str:
        chosen = (self.given.parameters or _NO_PARAMETERS).content_type
        if self.tensor is not IMAGE or self.binary is not None:
            return chosen or "str"
        if chosen == "str":
            raise self._malformed("in JSON a picture is base64; or send it as binary data")
        return "base64"

    def _decoded(self, element: bytes) -> bytes:
        try:
            return base64.b64decode(element, validate=True)
        except (binascii.Error, ValueError):
            raise self._malformed("must be base64") from None

    def _malformed(self, message: str) -> MalformedRequestError:
        return MalformedRequestError(f"{self.place} ({self.tensor.name}): {message}")


def _split(body: bytes, header: str | None) -> tuple[memoryview, memoryview]:
    """The document, and what comes behind it."""
    whole = memoryview(body)
    if header is None:
        return whole, whole[len(whole) :]
    if not _DECIMAL.fullmatch(header):
        raise MalformedRequestError(f"{HEADER} must be a whole number: the length of the JSON document, bytes")
    length = int(header)
    if length > len(whole):
        raise MalformedRequestError(f"{HEADER} is {length}, but the body has {len(whole)} bytes")
    return whole[:length], whole[length:]


def _parsed(view: memoryview) -> InferenceRequest:
    document = bytes(view)
    if document.count(b",") > MOST_COMMAS:
        raise MalformedRequestError("the document holds too many values")
    try:
        return InferenceRequest.model_validate_json(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            raise MalformedRequestError(
                f"the document is no JSON: {errors[0]['msg']}; {HEADER} must tell where it ends if binary "
                "data comes behind it"
            ) from None
        problems = [f"{problem.field}: {problem.message}" for problem in field_problems(errors[:MOST_PROBLEMS])]
        raise MalformedRequestError("; ".join(problems)) from None


def _binary_data(request: InferenceRequest, behind: memoryview, header: str | None) -> list[memoryview | None]:
    """For each input its part of what comes behind the document; None if it has none."""
    parts: list[memoryview | None] = []
    for index, given in enumerate(request.inputs):
        size = (given.parameters or _NO_PARAMETERS).binary_data_size
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


def _by_name(request: InferenceRequest, parts: list[memoryview | None]) -> dict[str, _Input]:
    """The inputs, after a look at names, types, shapes, and whether all that are needed are there."""
    inputs: dict[str, _Input] = {}
    for index, (given, binary) in enumerate(zip(request.inputs, parts, strict=True)):
        place = f"inputs.{index}"
        tensor = INPUTS.get(given.name)
        if tensor is None:
            raise MalformedRequestError(
                f"{place}: there is no input {given.name!r}; there are {', '.join(INPUTS)}"
            )
        place_and_name = f"{place} ({tensor.name})"
        if tensor.name in inputs:
            raise MalformedRequestError(f"{place_and_name}: is there twice")
        if given.datatype != tensor.datatype:
            raise MalformedRequestError(
                f"{place_and_name}: datatype must be {tensor.datatype}, not {given.datatype!r}"
            )
        if not tensor.fits(given.shape):
            raise MalformedRequestError(
                f"{place_and_name}: shape must be {list(tensor.shape)}, -1 being any length, not {given.shape}"
            )
        if (given.data is None) == (binary is None):
            raise MalformedRequestError(f"{place_and_name}: give either data or binary_data_size")
        inputs[tensor.name] = _Input(place, tensor, given, binary)
    missing = [tensor.name for tensor in INPUTS.values() if tensor.required and tensor.name not in inputs]
    if missing:
        raise MalformedRequestError(f"inputs: {' and '.join(missing)} must be there")
    return inputs


def _elements(owner: _Input, data: memoryview, count: int) -> list[bytes]:
    """The elements of BYTES in binary data."""
    elements = []
    for index in range(count):
        if len(data) < _LENGTH.size:
            raise owner._malformed(f"the shape has {count} elements, and the binary data {index}")
        length = _LENGTH.unpack(data[: _LENGTH.size])[0]
        data = data[_LENGTH.size :]
        if length > len(data):
            raise owner._malformed(
                f"element {index} says it has {length} bytes, but there are {len(data)} left; each element "
                "begins with its length, 4 bytes, little-endian"
            )
        elements.append(bytes(data[:length]))
        data = data[length:]
    if len(data):
        raise owner._malformed(f"{len(data)} bytes of the binary data are left after {count} elements")
    return elements


def _optional(inputs: dict[str, _Input]) -> dict[str, object]:
    """Fields of the request that only some have."""
    fields: dict[str, object] = {}
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


def _timeout_ms(parameters: RequestParameters | None, most: int) -> int | None:
    microseconds = None if parameters is None else parameters.timeout
    if not microseconds:
        return None
    if microseconds > most * 1000:
        raise InvalidRequestError(
            [FieldProblem("parameters.timeout", f"must be at most {most * 1000} microseconds")]
        )
    return max(1, microseconds // 1000)


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
