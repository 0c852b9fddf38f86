"""W3C trace context: to which trace a request belongs, with OpenTelemetry or without; log lines say it."""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

# https://www.w3.org/TR/trace-context/#traceparent-header
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in its trace.

    Attributes:
        trace_id: 32 hexadecimal digits, the caller's where there is one.
        span_id: of this request, 16 hexadecimal digits.
    """

    trace_id: str
    span_id: str


trace_var: ContextVar[TraceContext | None] = ContextVar("ebseg_trace", default=None)


def random_id(size: int) -> str:
    """So many bytes in hexadecimal digits: an id and no secret, and so without a call of the system."""
    return random.randbytes(size).hex()


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """The trace context of a request by its headers; what is not valid is taken as if it were not there.

    Args:
        headers: names in lower case, as ASGI gives them.
    """
    parents = [value.strip() for name, value in headers if name == b"traceparent"]
    new = random_id(24)
    match = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None:
        return TraceContext(new[:32], new[32:])
    version, trace_id, parent_id, _, rest = match.groups()
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN or (version == b"00" and rest is not None):
        return TraceContext(new[:32], new[32:])
    return TraceContext(trace_id.decode(), new[32:])
