"""Sending: answers with JSON, files with ranges, and whatever a fault makes of them."""

import json
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.hub.faults import Fault, Heard

CHUNK = 1 << 18


class HungUpError(Exception):
    """The fault wants the connection cut."""


class FailedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str | None, message: str):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


class Answering(BaseHTTPRequestHandler):
    """What every route needs."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    heard: Heard
    fault: Fault
    closing: threading.Event

    def pause(self, seconds: float) -> None:
        """Waits, but not beyond the server's end."""
        if self.closing.wait(seconds):
            raise HungUpError

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the hub keeps what it heard."""

    def hang_up(self) -> None:
        """Cuts the connection."""
        self.close_connection = True
        with suppress(OSError):  # the client, or the server's end, cut it first
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Sends an answer that is in memory."""
        self._start(status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self._send(body)

    def answer_json(self, document: Any, headers: Mapping[str, str] | None = None) -> None:
        """Sends JSON."""
        self.answer(
            200, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode()
        )

    def fail(self, error: FailedError) -> None:
        """Sends an error as the hub does: the code in a header, the words in header and body."""
        body = json.dumps({"error": str(error)}).encode()
        self.answer(error.status, {"Content-Type": "application/json", **error.headers}, body)

    def send_file(self, path: Path, headers: Mapping[str, str]) -> None:
        """Sends a file, or the range of it that was asked for."""
        size = path.stat().st_size
        begin, end, status = 0, size, 200
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, headers.get("ETag"), headers.get("Last-Modified"))
        if found and same and not self.fault.no_ranges:
            begin, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
            if begin >= size:
                self.answer(416, {"Content-Range": f"bytes */{size}"})
                return
            status = 206
        sent = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - begin),
            **({} if self.fault.no_ranges else {"Accept-Ranges": "bytes"}),
            **({"Content-Range": f"bytes {begin}-{end - 1}/{size}"} if status == 206 else {}),
            **headers,
        }
        self._start(status, sent)
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(begin)
            left = end - begin
            while left:
                block = file.read(min(CHUNK, left))
                left -= len(block)
                self._send(block)

    def body(self) -> bytes:
        """All that was sent with the request."""
        return b"".join(iter(self.body_block, b""))

    def body_block(self) -> bytes:
        """The next bytes that were sent with the request; empty at their end."""
        if self._chunked is None:
            self._chunked = "chunked" in (self.headers.get("Transfer-Encoding") or "")
            self._left = 0 if self._chunked else int(self.headers.get("Content-Length") or 0)
            self._ended = not self._chunked
        if self._left == 0 and not self._ended:
            self._left = int(self.rfile.readline().split(b";")[0], 16)
            if self._left == 0:
                self.rfile.readline()
                self._ended = True
        block = self.rfile.read(min(CHUNK, self._left))
        if len(block) < min(CHUNK, self._left):
            raise HungUpError  # the client did
        self._left -= len(block)
        if self._chunked and block and self._left == 0:
            self.rfile.readline()
        self.heard.received += len(block)
        cut = self.fault.cut_after
        if cut is not None and self.heard.received > cut >= 0:
            raise HungUpError
        return block

    _chunked: bool | None = None
    _left = 0
    _ended = False

    def forget_body(self) -> None:
        """Makes ready for the next request of this connection."""
        self._chunked = None

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.pause(self.fault.wait)
        if self.fault.lose_answer or self.fault.cut_after == -1:
            raise HungUpError
        self.heard.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, block: bytes) -> None:
        if self.fault.wrong_bytes and block and self.heard.sent == 0:
            block = bytes([block[0] ^ 1]) + block[1:]
        cut = self.fault.cut_after
        if cut is not None and self.heard.sent + len(block) > cut:
            block = block[: max(0, cut - self.heard.sent)]
            self.wfile.write(block)
            self.heard.sent += len(block)
            raise HungUpError
        if self.fault.bytes_per_second:
            self.pause(len(block) / self.fault.bytes_per_second)
        self.wfile.write(block)
        self.heard.sent += len(block)
