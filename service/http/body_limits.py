"""Plain ASGI middleware that bounds a request's body: its bytes, its time, and its rate."""

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooSlowError, TooManyBytesError
from service.http.arrival import arrival_of
from service.observability.metrics import Metrics
from service.settings import Settings

LINGER_S = 2.0  # that a client which was refused may go on sending, so that it gets to the answer

_TAKEN_UNASKED = 1 << 16  # bytes of a body that a connection takes in before anybody reads them


class BodyLimits:
    """Bounds a body's bytes and the time it takes to arrive.

    An answer that goes out before the body was read closes the connection, unless all of the body is here
    already. It is not closed at once: hanging up on a client that still sends would make it miss the answer.

    Args:
        app: what is inside.
        settings: with the limits. The bytes are bounded by Content-Length and as they arrive; the time is
            from the first read to the body's end, and the rate that of the last `stall_s` of it.
        metrics: where it is counted what was ended.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics):
        self.app = app
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if scope["type"] == "http":
            body = _Body(self, scope, receive, send)
            await self.app(scope, body.receive, body.send)
        else:
            await self.app(scope, receive, send)


class _Body:
    """One request's body on its way in."""

    def __init__(self, limits: BodyLimits, scope: Scope, receive: Receive, send: Send):
        self._limits = limits
        self._receive = receive
        self._send = send
        self._arrival = arrival_of(scope)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        self._announced = int(length) if length.isdigit() else 0
        self._complete = self._announced == 0 and b"transfer-encoding" not in headers
        # unless it is too large for that, or its client sends it only if it is asked to
        self._may_be_here = self._announced <= _TAKEN_UNASKED and b"expect" not in headers
        self._bytes = 0
        self._until = 0.0  # when all of it has to be here, by the event loop's clock
        self._window_ends = 0.0  # when the present stretch of `stall_s` is over
        self._window_bytes = 0  # what had arrived when it began

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        settings = self._limits.settings
        if self._announced > settings.max_bytes:
            self._refuse_size()
        if self._arrival is not None and self._arrival.complete:
            message = await self._receive()
        else:
            now = asyncio.get_running_loop().time()
            if not self._until:
                self._until = now + settings.body_timeout_s
            if now >= self._window_ends:
                self._begin_window(now)
            message = await self._next(settings)
        self._note(message)
        if self._bytes > settings.max_bytes:
            self._refuse_size()
        return message

    async def _next(self, settings: Settings) -> Message:
        while True:
            try:
                async with asyncio.timeout_at(min(self._until, self._window_ends)):
                    return await self._receive()
            except TimeoutError:
                now = asyncio.get_running_loop().time()
            if now >= self._until:
                self._ended("body-too-slow")
                raise BodyTooSlowError(f"the body did not arrive within {settings.body_timeout_s:g} s")
            if self._bytes - self._window_bytes < settings.min_rate * settings.stall_s:
                self._ended("body-too-slow")
                rate = f"{settings.min_rate} bytes a second for {settings.stall_s:g} s"
                raise BodyTooSlowError(f"the body arrived at less than {rate}")
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window_ends = now + self._limits.settings.stall_s
        self._window_bytes = self._bytes

    def _refuse_size(self) -> None:
        self._ended("body-too-large")
        most = self._limits.settings.max_bytes
        raise TooManyBytesError(f"the body is too large; at most {most} bytes are taken")

    def _ended(self, reason: str) -> None:
        self._limits.metrics.count(self._limits.metrics.connections_ended, reason)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._complete and self._may_be_here:
            await self._drop(0.0)  # what came already
        if self._complete:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"
            await self._send(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop(LINGER_S)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _drop(self, seconds: float) -> None:
        """Reads what comes within so long."""
        try:
            async with asyncio.timeout(seconds):
                while not self._complete:
                    self._note(await self._receive())
        except TimeoutError:
            pass

    def _note(self, message: Message) -> None:
        self._bytes += len(message.get("body", b""))
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
