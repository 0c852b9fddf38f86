"""W3C trace context of requests, and their spans on the way out of the process.

Every request belongs to a trace, its caller's or a new one; log lines carry the ids. Where spans go to a
collector, that happens on a thread of its own, and a request never waits for it.
"""

import asyncio
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from service.settings import Settings, SettingsError

LOG = logging.getLogger(__name__)

MOST_WAITING = 4096  # requests whose spans wait to be sent; further ones are dropped and counted
BATCH = 128  # requests in one message to the collector
INTERVAL_S = 1.0  # between two looks at what waits
STOP_S = 3.0  # for what still waits when the service stops

# https://www.w3.org/TR/trace-context/#traceparent-header and #tracestate-header
_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_MEMBER = re.compile(
    r"([a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in its trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: of this request, 16 hexadecimal digits.
        parent_id: the caller's span; None if the trace begins here.
        sampled: whether spans of this trace are recorded; the caller decides, if there is one.
        state: the caller's `tracestate`, as one line.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True
    state: str = ""


trace_var: ContextVar[TraceContext | None] = ContextVar("ebseg_trace", default=None)


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """The trace context of a request by its headers; what is not valid is taken as if it were not there.

    Args:
        headers: names in lower case, as ASGI gives them.
    """
    given = [item for item in headers if item[0] in (b"traceparent", b"tracestate")]
    new = os.urandom(24).hex()
    span_id = new[32:]
    parents = [value.strip() for name, value in given if name == b"traceparent"]
    match = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None:
        return TraceContext(new[:32], span_id)
    version, trace_id, parent_id, flags, rest = match.groups()
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN or (version == b"00" and rest is not None):
        return TraceContext(new[:32], span_id)
    state = parse_state(value.decode("latin-1") for name, value in given if name == b"tracestate")
    sampled = bool(int(flags, 16) & 1)
    return TraceContext(trace_id.decode(), span_id, parent_id.decode(), sampled, state)


def parse_state(lines: Iterable[str]) -> str:
    """`tracestate` lines as one; empty if any member is not valid."""
    members = [member.strip(" \t") for line in lines for member in line.split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    valid = len(members) <= _MOST_MEMBERS and len(keys) == len(members)
    return ",".join(members) if valid and all(map(_MEMBER.fullmatch, members)) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRequest:
    """What spans are made of.

    Attributes:
        trace: where the request's own span belongs.
        request_id: of logs and answers.
        method: one of the standard ones, or "_OTHER".
        route: the template; None if no route was found.
        status: of the answer.
        model: NAME/VERSION; None if no model was asked.
        began_ns: Unix time of the request's headers, nanoseconds.
        answered_s: from there to the answer's headers, seconds.
        seconds: from there to the answer's end.
        stages: seconds of each stage, in order.
    """

    trace: TraceContext
    request_id: str
    method: str
    route: str | None
    status: int
    model: str | None
    began_ns: int
    answered_s: float
    seconds: float
    stages: Mapping[str, float]


class Sender(Protocol):
    """Brings spans to a collector; used on one thread."""

    def send(self, requests: Sequence[FinishedRequest]) -> None:
        """Sends the spans of some requests; logs what fails."""

    def close(self) -> None:
        """Cuts waits short; from any thread."""


class Tracing:
    """Finished requests on their way to a collector: a bounded queue, and a thread once there is something.

    Args:
        settings: whose `otlp_endpoint` says where to; without one nothing is sent.
        sender: instead of the one that the settings ask for.
        interval_s: between two messages.
        stop_s: how long `stop` lets the rest be sent.

    Raises:
        SettingsError: an `otlp_endpoint`, and the extra `otlp` is not installed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sender: Sender | None = None,
        interval_s: float = INTERVAL_S,
        stop_s: float = STOP_S,
    ):
        self._sender = sender or _sender(settings.otlp_endpoint)
        self._interval_s = interval_s
        self._stop_s = stop_s
        self._waiting: deque[FinishedRequest] = deque()
        self.dropped = 0  # requests whose spans found no place; written by `add` only
        self._stopping = threading.Event()
        self._given_up = False
        self._thread: threading.Thread | None = None

    @property
    def active(self) -> bool:
        """Whether spans are sent anywhere."""
        return self._sender is not None

    def add(self, request: FinishedRequest) -> None:
        """Takes a request, or drops it when too many wait. Returns at once; on the event loop only."""
        if self._sender is None or self._stopping.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(self._sender,), name="ebseg-traces", daemon=True
            )
            self._thread.start()
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(request)
        else:
            self.dropped += 1

    async def stop(self) -> None:
        """Sends what waits, for a bounded time, and ends the thread."""
        self._stopping.set()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.join(self._stop_s)
        self._given_up = True
        if self._sender is not None:
            self._sender.close()
        if self._thread is not None:
            self._thread.join(self._stop_s)  # a message under way has a time limit of its own

    def _run(self, sender: Sender) -> None:
        told = 0
        while not self._stopping.wait(self._interval_s):
            self._flush(sender)
            dropped = self.dropped - told
            if dropped:
                LOG.warning("traces dropped: the collector is too slow", extra={"dropped": dropped})
                told += dropped
        self._flush(sender)

    def _flush(self, sender: Sender) -> None:
        while self._waiting and not self._given_up:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                sender.send(batch)
            except Exception:
                LOG.exception("traces could not be sent", extra={"dropped": len(batch)})


def _sender(endpoint: str | None) -> Sender | None:
    if endpoint is None:
        return None
    try:
        from service.observability.otlp import OtlpSender
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"otlp_endpoint needs a package that is not installed ({error.name}): pip install 'ebseg[otlp]'"
        ) from None
    return OtlpSender(endpoint)
