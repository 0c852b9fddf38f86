"""uvicorn's HTTP protocol under which nothing is unbounded: neither bytes nor time nor connections.

What can be answered is answered by a problem document, and the connection stays open for a moment, since
closing it over what its client still sends would make the client miss the answer. The body's bytes and time
are bounded by `body_limits.py`, where the application can say so in its answer.
"""

from asyncio import Transport
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import (
    HeadTooLargeError,
    HeadTooSlowError,
    MalformedRequestError,
    ServiceError,
    TooManyConnectionsError,
)
from service.http.arrival import Arrival, put_arrival
from service.http.body_limits import LINGER_S
from service.http.connections import Connections
from service.http.one_write import OneWrite
from service.http.problems import problem_response
from service.http.taking import AnswerTaking, reset, unsent
from service.http.turns import Turns
from service.observability.trace_context import random_id
from service.settings import Settings

MOST_PIPELINED = 16  # requests sent before the first of them is answered; hardly any client sends two
_LARGE_PIECE = 1 << 14  # bytes
_FRAMING = (b"content-length", b"transfer-encoding")
_HEADER_BYTES = 4  # of a header beside its name and value


class _EndedError(Exception):
    """Stops the parser; the connection has ended."""


class EdgeProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        settings: with the limits.
        connections: it and all others.
        turns: in which they are heard.
        arguments: of uvicorn.
    """

    def __init__(self, *, settings: Settings, connections: Connections, turns: Turns, **arguments: Any):
        super().__init__(**arguments)
        self.timeout_keep_alive: float = settings.idle_timeout_s  # type: ignore[assignment]
        self.settings = settings
        self._connections = connections
        self._turns = turns
        self._arrived = 0.0  # when what is parsed now came, by `time.monotonic()`
        self._unparsed = 0  # bytes since the last head, piece of a body or end of one
        self._in_head = True  # whether what comes next is of a head
        self._head_bytes = 0
        self._head_since: float | None = None
        self._closes_at: float | None = None  # set once it was refused: by then it is gone
        self._ended = False
        self._repeated = False  # whether the parser is told a head again
        self._answer = AnswerTaking()
        self._writing: OneWrite
        self._arrival: Arrival | None = None  # of the last request

    # of asyncio

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Takes the connection in, or says that there is no place."""
        super().connection_made(transport)
        self._writing = OneWrite(transport, self.loop)
        try:
            self._connections.add(self, self.client[0] if self.client else None)
        except TooManyConnectionsError as error:
            self._refuse(error, error.reason)
        else:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._ended = True
        self._connections.remove(self)
        self._turns.forget(self)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        self._tell_gone()

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, when it is its turn."""
        if not self._ended:
            self._turns.take(self, data)

    # of `Turns`

    def be_deaf(self) -> None:
        """Reads nothing from its client any more, which is not silent: its place is not for another one."""
        self.transport.pause_reading()
        self._connections.busy(self)
        self._unset_keepalive_if_required()

    def listen_again(self) -> None:
        """Reads from it, unless the application has enough for now."""
        if not self._answering():
            self._connections.idle(self)
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def break_off(self) -> None:
        """Ends at once, over a fault of ours."""
        self._abort()

    def hear(self, data: bytes, arrived: float) -> None:
        """Parses what arrived, within bounds."""
        if self._ended:
            return
        self._arrived = arrived
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        if self._ended:
            return
        if self._unparsed > self.settings.max_header_bytes:
            self._refuse_head()
        elif self._in_head and self._unparsed and self._head_since is None:
            self._head_since = self.loop.time()

    def _feed(self, data: bytes) -> None:
        """Parses; a request that offers another protocol is of HTTP/1.1 all the same.

        After the head of such a one the parser would read no body: another one goes on behind a head that
        says how long it is, and offers nothing.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            framing = [b"%s: %s\r\n" % header for header in self.headers if header[0] in _FRAMING]
            self.parser = httptools.HttpRequestParser(self)
            self._repeated = True
            self.parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))

    def resume_writing(self) -> None:
        """Notes that the client takes its answer."""
        super().resume_writing()
        self._answer.took()

    # of the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._repeated:
            return
        self._head_since = self.loop.time()
        self._head_bytes = 0
        super().on_message_begin()
        self.scope["state"]["since"] = self._arrived  # the request's time counts from here

    def on_url(self, url: bytes) -> None:
        """A piece of its target."""
        if self._repeated:
            return
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what stands behind a body is no part of the request."""
        if self._in_head and not self._repeated:
            super().on_header(name, value)
            self._count_head(len(name) + len(value) + _HEADER_BYTES)

    def on_headers_complete(self) -> None:
        """The request can go to the application."""
        if self._repeated:
            self._repeated = False
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            self._end("pipelined")
            raise _EndedError
        self._connections.busy(self)
        self._in_head = False
        self._head_since = None
        self._unparsed = 0
        super().on_headers_complete()
        self.cycle.transport = self._writing  # type: ignore[assignment]
        self._arrival = Arrival(self.cycle)
        put_arrival(self.cycle.scope["state"], self._arrival)

    def on_body(self, body: bytes) -> None:
        """A piece of the body; a large one goes to the application as it is, without a copy."""
        self._unparsed = 0
        cycle = self.cycle
        if not cycle.body and len(body) >= _LARGE_PIECE:
            cycle.body = b""  # type: ignore[assignment]  # nothing and a piece is the piece itself
        elif isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)  # to which many small pieces are added without copying all
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's end, unless the parser takes what follows for another protocol."""
        self._unparsed = 0
        if self.parser.should_upgrade():
            return
        self._in_head = True
        super().on_message_complete()

    # of uvicorn

    def on_response_complete(self) -> None:
        """The next request, if it is here, or else a time of silence."""
        self._writing.flush()
        super().on_response_complete()
        if self._ended or self.timeout_keep_alive_task is None:
            return
        if self._head_since is not None:
            self._head_since = self.loop.time()
            self._unset_keepalive_if_required()
        else:
            self._connections.idle(self)

    def timeout_keep_alive_handler(self) -> None:
        """The silence was too long; a client that still takes its answer is not silent."""
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size():
            self._expect_request()
        else:
            self._close("idle")

    def send_400_response(self, msg: str) -> None:
        """What arrived is no HTTP."""
        if not self._ended:
            self._refuse(MalformedRequestError("this is no HTTP/1.1 request that can be read"), "malformed")

    def shutdown(self) -> None:
        """The server stops; what arrived before is answered."""
        if (waiting := self._turns.forget(self)) is not None:
            self.hear(*waiting)
        if self._ended:
            self.transport.close()
        else:
            super().shutdown()

    # of `Connections`

    def look(self, now: float) -> None:
        """Ends the connection if something has taken too long."""
        if self._closes_at is not None:
            if now >= self._closes_at:
                self._abort()
            return
        settings = self.settings
        left = unsent(self.transport)
        if self._answer.too_slow(now, left, settings.answer_timeout_s, settings.stall_s, settings.min_rate):
            self._end("answer-too-slow")
        elif (
            self._head_since is not None
            and not self._answering()
            and now - self._head_since > settings.header_timeout_s
        ):
            seconds = settings.header_timeout_s
            self._refuse(
                HeadTooSlowError(f"the request's headers did not arrive within {seconds:g} s"),
                "headers-too-slow",
            )

    def make_room(self) -> None:
        """Closes a connection without a request."""
        self._close("made-room")

    # how it ends

    def _expect_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.settings.max_header_bytes:
            self._refuse_head()
            raise _EndedError

    def _refuse_head(self) -> None:
        most = self.settings.max_header_bytes
        error = HeadTooLargeError(f"the request's headers are too large; at most {most} bytes are taken")
        self._refuse(error, "headers-too-large")

    def _refuse(self, error: ServiceError, reason: str) -> None:
        """Says why, if no answer is under way, and ends."""
        if (self._answering() and not self._taken_back()) or not self._connections.refuse(self):
            self._end(reason)
            return
        self._ended = True
        self._connections.ended(reason)
        self._unset_keepalive_if_required()
        self._closes_at = self.loop.time() + LINGER_S
        self.flow.resume_reading()
        self._writing.flush()
        self.transport.write(_answer_of(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _taken_back(self) -> bool:
        """Whether the request that is just being read could be taken from the application unanswered."""
        cycle = self.cycle
        if self._in_head or self.pipeline or cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        self._tell_gone()
        return True

    def _tell_gone(self) -> None:
        if self._arrival is not None and self.cycle.disconnected:
            self._arrival.gone()

    def _end(self, reason: str) -> None:
        """Ends at once, and throws away what was not taken."""
        if not self._ended:
            self._connections.ended(reason)
        self._abort()

    def _close(self, reason: str) -> None:
        self._ended = True
        self._connections.ended(reason)
        self._connections.remove(self)
        self.transport.close()

    def _abort(self) -> None:
        self._ended = True
        self._connections.remove(self)
        reset(self.transport)


def edge_protocol(settings: Settings, connections: Connections) -> type[HttpToolsProtocol]:
    """The class that uvicorn makes a connection of."""
    turns = Turns()

    class Edge(EdgeProtocol):
        """With the settings of one server."""

        def __init__(self, **arguments: Any):
            super().__init__(settings=settings, connections=connections, turns=turns, **arguments)

    return Edge


def _answer_of(error: ServiceError) -> bytes:
    """An answer as it goes over the wire."""
    request_id = random_id(16)
    response = problem_response(error, request_id)
    status = HTTPStatus(response.status_code)
    own = [(b"connection", b"close"), (b"x-request-id", request_id.encode())]
    head = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
    head += [name + b": " + value for name, value in [*response.raw_headers, *own]]
    return b"\r\n".join([*head, b"", bytes(response.body)])
