"""Plain ASGI middleware: limits on bodies, and around every request an id, metrics, a log line, errors."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlowError, ClientGoneError, TooManyBytesError
from service.http.auth import ApiKeys
from service.http.inference_errors import error_response, speaks_protocol
from service.http.problems import kind_of, problem_response
from service.observability.logging import request_id_var
from service.observability.metrics import Metrics
from service.observability.trace_context import TraceContext, trace_of, trace_var

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})
UNANSWERED = kind_of(ClientGoneError("")).status  # what is counted when the answer never went out
LINGER = 2.0  # seconds; how long a refused body is still read, so that its sender gets to the answer


class BodyLimits:
    """Bounds a body's bytes and the time it takes to arrive.

    An answer that goes out before the body has come in closes the connection, but not at once: hanging up on
    a client that still sends would make it miss the answer.

    Args:
        app: what is inside.
        max_bytes: of a body, by Content-Length and as it arrives.
        seconds: from the first read to the body's end.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, seconds: float):
        self.app = app
        self.max_bytes = max_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] == "http":
            body = _Body(self, Headers(scope=scope), receive, send)
            await self.app(scope, body.receive, body.send)
        else:
            await self.app(scope, receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, limits: BodyLimits, headers: Headers, receive: Receive, send: Send):
        self._limits = limits
        self._receive = receive
        self._send = send
        self._announced = int(length) if (length := headers.get("content-length", "0")).isdecimal() else 0
        self._complete = self._announced == 0 and "transfer-encoding" not in headers
        self._bytes = 0
        self._until: float | None = None

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        too_many = TooManyBytesError(
            f"the body is too large; at most {self._limits.max_bytes} bytes are taken"
        )
        if self._announced > self._limits.max_bytes:
            raise too_many
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._limits.seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlowError(f"the body did not arrive within {self._limits.seconds:g} s") from None
        self._note(message)
        if self._bytes > self._limits.max_bytes:
            raise too_many
        return message

    async def send(self, message: Message) -> None:
        if self._complete:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while not self._complete:
                    self._note(await self._receive())
        except TimeoutError:
            pass

    def _note(self, message: Message) -> None:
        self._bytes += len(message.get("body", b""))
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)


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
        try:
            self.keys.check(scope)
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.status:
                raise  # half an answer is out; the server closes the connection
            response = answer_error(error, scope, self.metrics)
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
        self.metrics.count(self.metrics.requests, route, str(status))
        self.metrics.observe(self.metrics.request_seconds, seconds, route)
        if ACCESS.isEnabledFor(logging.INFO):
            ACCESS.info(
                "request",
                extra={
                    "method": method,
                    "route": route,
                    "status": status,
                    "duration_ms": round(1000 * seconds, 1),
                    "bytes_in": exchange.bytes_in,
                    "bytes_out": exchange.bytes_out,
                    "model": model,
                    "client": exchange.client,
                },
            )


class _Exchange:
    """One request and its answer: ids, times and sizes, and the headers that every answer gets."""

    __slots__ = (
        "_receive", "_send", "began", "bytes_in", "bytes_out", "client", "request_id", "state", "status",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self.began = time.perf_counter()
        self.bytes_in = self.bytes_out = 0
        self.status = 0  # of the answer; 0 until it begins
        self._receive = receive
        self._send = send
        headers = scope["headers"]
        given = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        client = scope.get("client")
        self.client: str | None = client[0] if client else None
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
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
    kind = kind_of(error)
    if kind.refusal:
        metrics.rejected.labels(kind.slug).inc()
    if kind.internal:
        LOG.error("request failed", exc_info=error)
    respond = error_response if speaks_protocol(scope) else problem_response
    return respond(error, scope["state"]["request_id"])
