"""Calls between two processes over a socket pair: frames of a JSON document and bytes behind it.

A frame is the lengths of both, and both. Each side may call the other. Who is served, and under which id,
goes along, so that log lines of either process name it.
"""

import asyncio
import json
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from types import MappingProxyType
from typing import Any, cast

from service.caller import Caller, address_var, caller_var
from service.errors import NotReadyError
from service.observability.logging import request_id_var
from service.observability.trace_context import TraceContext, trace_var
from service.workers.errors import from_document, to_document

LOG = logging.getLogger(__name__)
Args = dict[str, Any]
Reply = tuple[Any, bytes]
Handler = Callable[[Args, bytes], Awaitable[Reply]]
Listener = Callable[[Args, bytes], None]
_LENGTHS = struct.Struct("<II")
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class LinkLostError(NotReadyError):
    """The other process has ended. Of a worker it is the one with the model, and the service ends, too."""

    def __init__(self) -> None:
        super().__init__("the service has lost its model and ends; try again later")


class _Call:
    """A call that has no reply yet."""

    __slots__ = ("future", "settled")

    def __init__(
        self, future: "asyncio.Future[Reply] | Future[Reply]", settled: Callable[[], None] | None = None
    ):
        self.future = future
        self.settled = settled


class Link(asyncio.Protocol):
    """One end. For the event loop's thread, but for `call_from_thread`.

    Args:
        calls: what the other end may call; each runs as a task of its own.
        tells: what it may tell, in the order that it is told.
        asks: what it may call and is answered at once, in the order of the tells.
        on_lost: notified once the other process has ended.
    """

    def __init__(
        self,
        calls: Mapping[str, Handler],
        tells: Mapping[str, Listener],
        on_lost: Callable[[], None] = lambda: None,
        asks: Mapping[str, Callable[[Args], Any]] = MappingProxyType({}),
    ):
        self._calls = calls
        self._tells = tells
        self._asks = asks
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._waiting: dict[int, _Call] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self.lost = False

    async def call(
        self, method: str, args: Args, blob: bytes = b"", settled: Callable[[], None] | None = None
    ) -> Reply:
        """Calls the other end. Cancelling this cancels it there.

        Args:
            method: one of the other end's calls.
            args, blob: what it gets.
            settled: notified once the other end has done with it, cancelled or not.

        Raises:
            LinkLostError: the other process has ended.
            Exception: what the other end raised.
        """
        if self.lost:
            if settled is not None:
                settled()
            raise LinkLostError()
        self._number += 1
        number = self._number
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = _Call(future, settled)
        self._write({"call": method, "n": number, "a": args, "of": _context()}, blob)
        try:
            return await future
        except asyncio.CancelledError:
            self._write({"cancel": number})
            raise

    def call_from_thread(self, method: str, args: Args) -> Any:
        """`call` from any other thread, whose document is returned; blocks."""
        waits: Future[Reply] = Future()
        self._loop.call_soon_threadsafe(self._call_for, {"call": method, "a": args, "of": _context()}, waits)
        return waits.result()[0]

    def _call_for(self, document: dict[str, Any], waits: "Future[Reply]") -> None:
        """Calls the other end for a thread."""
        if self.lost:
            waits.set_exception(LinkLostError())
            return
        self._number += 1
        self._waiting[self._number] = _Call(waits)
        self._write({**document, "n": self._number})

    def tell(self, method: str, args: Args, blob: bytes = b"") -> None:
        """Tells the other end; there is no answer."""
        self._write({"tell": method, "a": args, "of": _context()}, blob)

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    # of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """Takes frames apart."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(buffer, at)
            start = at + _LENGTHS.size
            if len(buffer) < start + head + body:
                break
            document = json.loads(buffer[start : start + head])
            blob = bytes(buffer[start + head : start + head + body])
            at = start + head + body
            self._take(document, blob)
        if at:
            del buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """Ends all that was under way."""
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            if one.settled is not None:
                one.settled()
            if not one.future.done():
                one.future.set_exception(LinkLostError())
                one.future.exception()  # looked at, should nobody await it
        for task in self._running.values():
            task.cancel()
        self._on_lost()

    async def ended(self) -> None:
        """Waits until nothing runs that the other end has called."""
        while self._running:
            await asyncio.wait(set(self._running.values()))

    def _take(self, document: dict[str, Any], blob: bytes) -> None:
        if "call" in document:
            number = document["n"]
            if document["call"] in self._asks:
                self._answer(number, document)
                return
            handler = self._calls[document["call"]]
            task = self._loop.create_task(self._serve(number, handler, document, blob))
            self._running[number] = task
            task.add_done_callback(partial(self._finished, number))
        elif "tell" in document:
            self._listen(document, blob)
        elif "cancel" in document:
            if (running := self._running.get(document["cancel"])) is not None:
                running.cancel()
        elif (waits := self._waiting.pop(document["n"], None)) is not None:
            if waits.settled is not None:
                waits.settled()
            if waits.future.done():
                return
            if "error" in document:
                waits.future.set_exception(from_document(document["error"]))
            else:
                waits.future.set_result((document["reply"], blob))

    def _listen(self, document: dict[str, Any], blob: bytes) -> None:
        _set_context(document["of"])
        try:
            self._tells[document["tell"]](document["a"], blob)
        except Exception:  # or what comes after it would be lost, too
            LOG.exception("what another process told went wrong", extra={"told": document["tell"]})

    async def _serve(self, number: int, handler: Handler, document: dict[str, Any], blob: bytes) -> None:
        reply: dict[str, Any]
        try:
            _set_context(document["of"])
            found, blob = await handler(document["a"], blob)
            reply = {"n": number, "reply": found}
        except asyncio.CancelledError as error:
            reply, blob = {"n": number, "error": to_document(error)}, b""
        except Exception as error:
            reply, blob = {"n": number, "error": to_document(error)}, b""
        self._write(reply, blob)

    def _answer(self, number: int, document: dict[str, Any]) -> None:
        _set_context(document["of"])
        try:
            reply = {"n": number, "reply": self._asks[document["call"]](document["a"])}
        except Exception as error:
            reply = {"n": number, "error": to_document(error)}
        self._write(reply)

    def _finished(self, number: int, task: "asyncio.Task[None]") -> None:
        del self._running[number]
        if task.cancelled():  # before it began
            self._write({"n": number, "error": to_document(asyncio.CancelledError())})

    def _write(self, document: dict[str, Any], blob: bytes = b"") -> None:
        if self.lost or self._transport is None:
            return
        head = _encode(document).encode()
        frame = _LENGTHS.pack(len(head), len(blob)) + head
        self._transport.write(frame + blob if blob else frame)


def _context() -> list[Any]:
    caller, trace = caller_var.get(), trace_var.get()
    traced = None if trace is None else [trace.trace_id, trace.span_id]
    return [request_id_var.get(), caller.name, caller.owner, caller.everything, address_var.get(), traced]


def _set_context(values: list[Any]) -> None:
    request_id, name, owner, everything, address, trace = values
    request_id_var.set(request_id)
    caller_var.set(Caller(name, owner, everything=everything))
    address_var.set(address)
    trace_var.set(None if trace is None else TraceContext(*trace))
