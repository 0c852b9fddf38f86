"""JSON values as what annotations say: the one reader of frozen dataclasses that were written as JSON."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Error = Callable[[str], Exception]
UNIONS = (types.UnionType, Union)  # `X | None` is the second where X is a literal


def read(kind: Any, value: Any, where: str, error: Error, *, complete: bool = False) -> Any:
    """A JSON value as what an annotation says.

    A dataclass is an object of its fields. One that may be None may be missing, and one that has a default,
    unless it is to be complete.

    Args:
        kind: a dataclass, a tuple, a literal, a plain type, or one of them or None. A tuple is of so many
            parts, or with `...` of any number.
        value: of `json.loads`.
        where: what messages call it.
        error: makes the error of a message.
        complete: fields that have a default are needed as well.

    Raises:
        Exception: a field is missing, unknown or of the wrong kind: what `error` makes, or the dataclass.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, where, error, complete)
    if get_origin(kind) in UNIONS:
        (own,) = (part for part in get_args(kind) if part is not types.NoneType)
        return None if value is None else read(own, value, where, error, complete=complete)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where, error, complete)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise error(f"{where} must be one of {', '.join(get_args(kind))}; got {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # not isinstance: True is an int to Python, but no number
        raise error(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def _object(kind: Any, value: Any, where: str, error: Error, complete: bool) -> Any:
    if not isinstance(value, dict):
        raise error(f"{where} must be an object, got {value!r}")
    kinds = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    needed = {
        name
        for name, item in fields.items()
        if get_origin(kinds[name]) not in UNIONS
        and (complete or item.default is item.default_factory is dataclasses.MISSING)
    }
    for problem, names in (
        ("is unknown", value.keys() - fields.keys()),
        ("is missing", needed - value.keys()),
    ):
        if names:
            raise error(f"{where}: field {min(map(str, names))!r} {problem}")
    return kind(
        **{
            name: read(kinds[name], value[name], f"{where}.{name}", error, complete=complete)
            for name in value
        }
    )


def _tuple(parts: tuple[Any, ...], value: Any, where: str, error: Error, complete: bool) -> Any:
    many = parts[-1] is Ellipsis
    if not isinstance(value, list | tuple) or not (many or len(value) == len(parts)):
        raise error(f"{where} must be a list{'' if many else f' of {len(parts)}'}, got {value!r}")
    kinds = (parts[0],) * len(value) if many else parts
    return tuple(
        read(part, item, where, error, complete=complete) for part, item in zip(kinds, value, strict=True)
    )
