"""Plain ASGI middleware around every request: its ids, key, metrics, log line, and its errors."""

import asyncio
import logging
import re
import time
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.caller import address_var, caller_var
from service.errors import ClientGoneError, NotReadyError
from service.http.auth import ApiKeys
from service.http.inference_errors import error_response, speaks_protocol
from service.http.problems import kind_of, problem_response
from service.observability.logging import request_id_var
from service.observability.metrics import Metrics
from service.observability.trace_context import TraceContext, random_id, trace_of, trace_var

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What machines ask every few seconds, and the page's files: counted, not timed, and logged if it went wrong
PROBES = frozenset(
    {"/livez", "/readyz", "/startupz", "/metrics", "/v2/health/live", "/v2/health/ready"}
    | {"/static/{path:path}"}
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})
ENDING = "the service is shutting down, and its time for this request was over"
UNANSWERED = kind_of(ClientGoneError("")).status  # what is counted when the answer never went out


class Requests:
    """Gives every request its ids, asks for a key, counts, logs, and answers what nobody has caught.

    Args:
        app: what is inside.
        metrics: where requests are counted.
        routes: paths of the routes, as templates; all others are counted as "other".
        keys: who may come in; by default everybody but administrators.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        routes: Collection[str],
        keys: ApiKeys | None = None,
    ):
        self.app = app
        self.metrics = metrics
        self.routes = frozenset(routes)
        self.keys = keys or ApiKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        address_var.set(exchange.client)
        try:
            key = self.keys.check(scope)
            caller = self.keys.caller(key)
            exchange.key = caller.name
            caller_var.set(caller)
            async with self.keys.using(key):
                await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.status:
                raise  # half an answer is out; the server closes the connection
            response = answer_error(error, scope, self.metrics)
            await response(scope, receive, exchange.send)
        except asyncio.CancelledError:  # the server ends, and waits no longer; it would log a traceback
            if exchange.state.get("tunnelled"):
                raise  # the worker that asked has ended, or its client has gone
            if not exchange.status:
                response = answer_error(NotReadyError(ENDING), scope, self.metrics)
                await response(scope, receive, exchange.send)
        finally:
            self._note(scope, exchange)

    def _note(self, scope: Scope, exchange: "_Exchange") -> None:
        """Metrics and a log line. Nothing of it holds what a user wrote, but the request's id."""
        seconds = time.perf_counter() - exchange.began
        path = getattr(scope.get("route"), "path", None)
        route = str(path) if path in self.routes else "other"
        status = exchange.status or UNANSWERED
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        model = exchange.state.get("model")
        probe = route in PROBES
        self.metrics.request(route, status, None if probe else seconds, exchange.state.get("version"))
        if exchange.key:
            self.metrics.count(self.metrics.key_requests, exchange.key, str(status))
        level = logging.DEBUG if probe and status < HTTPStatus.BAD_REQUEST else logging.INFO
        if ACCESS.isEnabledFor(level):
            # not ACCESS.log, which looks for the line of code that called it
            record = logging.LogRecord(ACCESS.name, level, __file__, 0, "request", (), None)
            record.__dict__.update(
                method=method,
                route=route,
                status=status,
                duration_ms=round(1000 * seconds, 1),
                bytes_in=exchange.bytes_in,
                bytes_out=exchange.bytes_out,
                model=model,
                client=exchange.client,
                key=exchange.key or None,
            )
            ACCESS.handle(record)


class _Exchange:
    """One request and its answer: ids, times and sizes, and the headers that every answer gets."""

    __slots__ = (
        "_receive", "_send", "began", "bytes_in", "bytes_out", "client", "key", "request_id", "state",
        "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self.began = time.perf_counter()
        self.bytes_in = self.bytes_out = 0
        self.key = ""  # name of the key, where one is needed
        self.status = 0  # of the answer; 0 until it begins
        self._receive = receive
        self._send = send
        headers = scope["headers"]
        given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else random_id(16)
        client = scope.get("client")
        self.client: str | None = client[0] if client else None
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
        self.state.setdefault("since", time.monotonic())  # of its first byte, which the connection may know
        traced: TraceContext | None = self.state.get("trace")  # of the span around this, where there is one
        request_id_var.set(self.request_id)
        trace_var.set(traced or trace_of(headers))

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            stages = {**self.state.get("seconds", {}), "total": time.perf_counter() - self.began}
            timing = ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items())
            own = [(b"x-request-id", self.request_id.encode()), (b"server-timing", timing.encode())]
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        elif message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def answer_error(error: Exception, scope: Scope, metrics: Metrics) -> Response:
    """The answer to an error, which is counted if it is a refusal and logged if it is our fault.

    Args:
        error: what was raised.
        scope: of the request; its path decides the form of the answer.
        metrics: where refusals are counted.
    """
    count_error(error, metrics)
    respond = error_response if speaks_protocol(scope) else problem_response
    return respond(error, scope["state"]["request_id"])


def count_error(error: Exception, metrics: Metrics) -> None:
    """Counts an error if it is a refusal, and logs it if it is our fault."""
    kind = kind_of(error)
    if kind.refusal:
        metrics.count(metrics.rejected, kind.slug)
    if kind.internal:
        LOG.error("request failed", exc_info=error)
