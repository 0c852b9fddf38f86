"""One input of an inference request: its checks, and its elements, from JSON or from binary data."""

import base64
import binascii
import math
import struct
from dataclasses import dataclass
from typing import Any

from model.vocabulary.classes import MAX_CLASSES
from service.errors import MalformedRequestError
from service.schemas.inference_protocol import IMAGE, RequestInput, Tensor
from service.schemas.picture_text import picture_bytes

_LENGTH = struct.Struct("<I")  # before each element of BYTES
_FP32 = struct.Struct("<f")


@dataclass(frozen=True, slots=True)
class Input:
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

    def check(self) -> None:
        """Raises MalformedRequestError if type, shape or parameters are wrong."""
        tensor, given = self.tensor, self.given
        if given.datatype != tensor.datatype:
            raise self.malformed(f"datatype must be {tensor.datatype}, not {given.datatype!r}")
        if not tensor.fits(given.shape):
            raise self.malformed(
                f"shape must be {list(tensor.shape)}, -1 being any length, not {given.shape}"
            )
        if (given.data is None) == (self.binary is None):
            raise self.malformed("give either data or binary_data_size")
        if tensor.datatype != "BYTES" and self.given.said.content_type is not None:
            raise self.malformed("content_type is for BYTES")

    def elements(self) -> list[bytes]:
        """The elements of BYTES."""
        count = math.prod(self.given.shape)
        if count > MAX_CLASSES:
            raise self.malformed(f"at most {MAX_CLASSES} elements are taken")
        elements = self._from_json(count) if self.binary is None else self._from_binary(self.binary, count)
        if self._content_type() == "base64":
            return [self._decoded(element) for element in elements]
        return elements

    def strings(self) -> list[str]:
        """The elements of BYTES that hold text."""
        try:
            return [element.decode() for element in self.elements()]
        except UnicodeDecodeError:
            raise self.malformed("must be UTF-8") from None

    def number(self) -> float:
        """The one element of FP32."""
        if self.binary is None:
            (value,) = self._data(1)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.malformed("data must hold numbers")
            return value
        if len(self.binary) != _FP32.size:
            raise self.malformed(f"binary_data_size must be {_FP32.size}, the size of one FP32")
        value = _FP32.unpack(self.binary)[0]
        assert isinstance(value, float)
        return value

    def _from_json(self, count: int) -> list[bytes]:
        elements = self._data(count)
        if not all(isinstance(element, str) for element in elements):
            raise self.malformed("data must be a flat list of strings")
        return [element.encode() for element in elements]

    def _from_binary(self, data: memoryview, count: int) -> list[bytes]:
        elements = []
        for index in range(count):
            if len(data) < _LENGTH.size:
                raise self.malformed(f"the shape has {count} elements, and the binary data {index}")
            length = _LENGTH.unpack(data[: _LENGTH.size])[0]
            data = data[_LENGTH.size :]
            if length > len(data):
                raise self.malformed(
                    f"element {index} says it has {length} bytes, but there are {len(data)} left; each "
                    "element begins with its length, 4 bytes, little-endian"
                )
            elements.append(bytes(data[:length]))
            data = data[length:]
        if len(data):
            raise self.malformed(f"{len(data)} bytes of the binary data are left after {count} elements")
        return elements

    def _data(self, count: int) -> list[Any]:
        data = self.given.data or []
        if len(data) != count:
            raise self.malformed(f"the shape has {count} elements, and data {len(data)}")
        return data

    def _content_type(self) -> str:
        chosen = self.given.said.content_type
        if self.tensor is not IMAGE or self.binary is not None:
            return chosen or "str"
        if chosen == "str":
            raise self.malformed("in JSON an image is base64; or send it as binary data")
        return "base64"

    def _decoded(self, element: bytes) -> bytes:
        try:
            return (
                picture_bytes(element) if self.tensor is IMAGE else base64.b64decode(element, validate=True)
            )
        except binascii.Error:
            raise self.malformed("must be base64") from None
        except ValueError as error:
            raise self.malformed(str(error)) from None

    def malformed(self, message: str) -> MalformedRequestError:
        """The error that says what is wrong with this input."""
        return MalformedRequestError(f"{self.place}: {message}")
