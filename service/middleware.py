"""Plain ASGI middleware: limits on bodies, and around every request an id, metrics, a log line, errors."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlowError, ClientGoneError, TooManyBytesError, kind_of, problem_response
from service.logging import request_id_var
from service.metrics import Metrics

LOG = logging.getLogger(__name__)
ACCESS = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
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
    """Gives every request an id, counts and logs it, and answers what nobody else has caught.

    Args:
        app: what is inside.
        metrics: where requests are counted.
        routes: paths of the routes, as templates; all others are counted as "other".
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Collection[str]):
        self.app = app
        self.metrics = metrics
        self.routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        request_id_var.set(request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                stages = {**state.get("seconds", {}), "total": time.perf_counter() - began}
                headers["Server-Timing"] = ", ".join(
                    f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items()
                )
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if status:
                raise  # half an answer is out; the server closes the connection
            response = answer_error(error, request_id, self.metrics)
            await response(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - began
            path = getattr(scope.get("route"), "path", None)
            route = path if path in self.routes else "other"
            self.metrics.requests.labels(route, str(status or UNANSWERED)).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            ACCESS.info(
                "request",
                extra={
                    "route": route,
                    "status": status or UNANSWERED,
                    "duration_ms": round(1000 * seconds, 1),
                },
            )


def answer_error(error: Exception, request_id: str, metrics: Metrics) -> Response:
    """The answer to an error, which is counted if it is a refusal and logged if it is our fault."""
    kind = kind_of(error)
    if kind.refusal:
        metrics.rejected.labels(kind.slug).inc()
    if kind.internal:
        LOG.error("request failed", exc_info=error)
    return problem_response(error, request_id)
