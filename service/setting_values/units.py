"""Sizes and times as people write them: 100 MiB, 100Mi, 30 s, 500ms. A bare number is of the own unit."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize

from model.command import SECONDS_OF

_SIZE = re.compile(r"\s*([0-9.]+)\s*([KMGT])(i?)b?\s*", re.IGNORECASE)
_TIME = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")
NO_SIZE = "must be a size such as 20 MiB, or a number of bytes"


def _size(value: Any) -> Any:
    """A size whose unit lacks its B, as Kubernetes writes it, with it."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else f"{found[1]}{found[2]}{found[3]}B"


def _time(value: Any, unit: str) -> Any:
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value)
    if found is None:
        return value
    if found[2] not in SECONDS_OF:
        raise ValueError(f"must be a time such as 30 s or 500 ms, or a number of {_NAMES[unit]}")
    number = float(found[1]) * SECONDS_OF[found[2]] / SECONDS_OF[unit]
    return round(number) if abs(number - round(number)) < 1e-9 else number


_NAMES = {"s": "seconds", "ms": "milliseconds"}


def _seconds(value: Any) -> Any:
    return _time(value, "s")


def _milliseconds(value: Any) -> Any:
    return _time(value, "ms")


Size = Annotated[ByteSize, BeforeValidator(_size)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
WholeSeconds = Annotated[int, BeforeValidator(_seconds)]
Milliseconds = Annotated[float, BeforeValidator(_milliseconds)]
WholeMilliseconds = Annotated[int, BeforeValidator(_milliseconds)]
