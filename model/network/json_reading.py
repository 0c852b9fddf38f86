"""JSON values as what annotations say: the one reader of frozen dataclasses that were written as JSON."""

import dataclasses
import reprlib
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Error = Callable[[str], Exception]
UNIONS = (types.UnionType, Union)  # `X | None` is the second where X is a literal
_MAPPINGS = (dict, Mapping)
_PLAIN = (str, int, float, bool)


def read(kind: Any, value: Any, where: str, error: Error, *, complete: bool = False) -> Any:
    """A JSON value as what an annotation says.

    A dataclass is an object of its fields. One that may be None may be missing, and one that has a default,
    unless it is to be complete.

    Args:
        kind: a dataclass, a tuple, a mapping of text, a literal, a plain type, `Any`, or one of several that
            JSON keeps apart, None among them. A tuple is of so many parts, or with `...` of any number.
        value: of `json.loads`.
        where: what messages call it.
        error: makes the error of a message.
        complete: fields that have a default are needed as well.

    Raises:
        Exception: a field is missing, unknown or of the wrong kind: what `error` makes, or the dataclass.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, where, error, complete)
    if get_origin(kind) in UNIONS:
        return _one_of(get_args(kind), value, where, error, complete)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where, error, complete)
    if get_origin(kind) in _MAPPINGS:
        return _mapping(get_args(kind)[1], value, where, error, complete)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise error(f"{where} must be one of {', '.join(get_args(kind))}; got {reprlib.repr(value)}")
        return value
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise error(f"{where} is too large a number: {reprlib.repr(value)}") from None
    if not _fits(kind, value):
        raise error(f"{where} must be {_name(kind)}, got {reprlib.repr(value)}")
    return value


def _fits(kind: Any, value: Any) -> bool:
    """Whether JSON writes a kind as a value like this one."""
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    if get_origin(kind) in _MAPPINGS or dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    return type(value) is kind  # not isinstance: True is an int to Python, but no number


def _name(*kinds: Any) -> str:
    plain = [kind.__name__ for kind in kinds if kind in _PLAIN]
    names = ["a list" if get_origin(kind) is tuple else "an object" for kind in kinds if kind not in _PLAIN]
    if plain:
        *first, last = plain
        names.append(f"of type {', '.join(first)} or {last}" if first else f"of type {last}")
    return " or ".join(names)


def _one_of(kinds: tuple[Any, ...], value: Any, where: str, error: Error, complete: bool) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    parts = [part for part in kinds if part is not types.NoneType]
    own = parts[0] if len(parts) == 1 else next((part for part in parts if _fits(part, value)), None)
    if own is None:
        raise error(f"{where} must be {_name(*parts)}, got {reprlib.repr(value)}")
    return read(own, value, where, error, complete=complete)


def _mapping(kind: Any, value: Any, where: str, error: Error, complete: bool) -> Any:
    if not isinstance(value, dict):
        raise error(f"{where} must be an object, got {reprlib.repr(value)}")
    return {
        name: read(kind, item, f"{where}.{name}", error, complete=complete) for name, item in value.items()
    }


def _object(kind: Any, value: Any, where: str, error: Error, complete: bool) -> Any:
    if not isinstance(value, dict):
        raise error(f"{where} must be an object, got {reprlib.repr(value)}")
    kinds = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    bare = {
        name for name, item in fields.items() if item.default is item.default_factory is dataclasses.MISSING
    }
    optional = {name for name in fields if types.NoneType in get_args(kinds[name])}
    needed = (fields.keys() if complete else bare) - optional
    for problem, names in (
        ("is unknown", value.keys() - fields.keys()),
        ("is missing", needed - value.keys()),
    ):
        if names:
            raise error(f"{where}: field {min(map(str, names))!r} {problem}")
    made = {
        name: read(kinds[name], value[name], f"{where}.{name}", error, complete=complete) for name in value
    }
    return kind(**dict.fromkeys(bare & optional) | made)


def _tuple(parts: tuple[Any, ...], value: Any, where: str, error: Error, complete: bool) -> Any:
    many = parts[-1] is Ellipsis
    if not isinstance(value, list | tuple) or not (many or len(value) == len(parts)):
        raise error(f"{where} must be a list{'' if many else f' of {len(parts)}'}, got {reprlib.repr(value)}")
    kinds = (parts[0],) * len(value) if many else parts
    return tuple(
        read(part, item, where, error, complete=complete) for part, item in zip(kinds, value, strict=True)
    )
