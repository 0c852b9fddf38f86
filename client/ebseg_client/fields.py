"""Values of JSON, by name and type; whatever does not fit is a ValueError or its like."""

import base64
import math
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")
Document = Mapping[str, Any]


def field(entry: Document, name: str, kind: type[T]) -> T:
    """A value that has to be there, and of this type."""
    return _value(name, entry[name], kind)


def fields(entry: Document, **kinds: type) -> dict[str, Any]:
    """Several values, by name."""
    return {name: field(entry, name, kind) for name, kind in kinds.items()}


def nullable(entry: Document, name: str, kind: type[T]) -> T | None:
    """A value that has to be there, and may be null."""
    value = entry[name]
    return None if value is None else _value(name, value, kind)


def optional(entry: Document, name: str, kind: type[T]) -> T | None:
    """A value that may be null or left out."""
    return None if entry.get(name) is None else field(entry, name, kind)


def listed(entry: Document, name: str, parse: Callable[[Any], T]) -> tuple[T, ...]:
    """A list, element by element."""
    return tuple(parse(value) for value in field(entry, name, list))


def mapped(entry: Document, name: str, kind: type[T]) -> dict[str, T]:
    """An object whose values are all of this type."""
    return {key: _value(f"{name}.{key}", value, kind) for key, value in field(entry, name, dict).items()}


def texts(entry: Document, name: str) -> tuple[str, ...]:
    """A list of texts."""
    return listed(entry, name, lambda text: _value(name, text, str))


def time(entry: Document, name: str) -> datetime:
    """A point in time."""
    return datetime.fromisoformat(field(entry, name, str))


def file(entry: Document, name: str) -> bytes | None:
    """A file in base64, if there is one."""
    text = optional(entry, name, str)
    return None if text is None else base64.b64decode(text, validate=True)


def _value(name: str, value: Any, kind: type[T]) -> T:
    """The value, if it is of the type. Whole numbers are floats as well, what is no number is none."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f"{name} is {reprlib.repr(value)}")
    return value
