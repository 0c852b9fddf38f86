"""One keep-alive HTTP/1.1 connection of the load: whole requests out, answers in, nothing decoded.

Sockets do not block; who owns the connection waits for what `wants_to_write` says.
"""

import socket

STAMP = b"#SERIAL#"  # in a request: replaced by a number that no other request has
MOST_OF_AN_ERROR = 300  # bytes of a bad answer's body that are kept
_CHUNK = 1 << 18
_HEAD_END = b"\r\n\r\n"
_MOST_HEAD = 1 << 16  # bytes


class LoadError(Exception):
    """The load cannot go on: nobody listens."""


class BadAnswerError(Exception):
    """An answer that is none, or not the one that was wanted; says why in a few words that do not vary."""

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(kind)
        self.detail = detail


class Connection:
    """Sends one request at a time.

    Args:
        address: host and port.
        requests: whole requests; each connection has copies of its own, as a stamp must not change under a
            request that is half sent.
        expect: first bytes of a good answer's body.
        timeout: seconds for a connection to be made.
        first: which request is sent first.
    """

    def __init__(
        self, address: tuple[str, int], requests: list[bytes], expect: bytes, timeout: float, first: int
    ):
        self.busy = False
        self.intended = 0.0  # when the request under way was to start
        self.sent = 0.0  # when it did
        self._address = address
        self._requests = [bytearray(request) for request in requests]
        self._stamps = [request.find(STAMP) for request in requests]
        self._expect = expect
        self._timeout = timeout
        self._turn = first % len(requests)
        self._socket: socket.socket | None = None
        self._left = memoryview(b"")  # of the request
        self._parts: list[bytes] = []
        self._received = 0
        self._whole = -1  # bytes of the answer, once its head is in
        self._body = 0  # where its body begins
        self._last = False  # whether the server closes after it

    def open(self) -> None:
        """Connects, unless it is connected.

        Raises:
            LoadError: nobody listens.
        """
        if self._socket is not None:
            return
        try:
            self._socket = socket.create_connection(self._address, self._timeout)
        except OSError as error:
            host, port = self._address
            raise LoadError(f"cannot connect to {host} port {port}: {error.strerror or error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(map(len, self._requests)))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Hangs up; the next request connects again."""
        self.busy = False
        self._left = memoryview(b"")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """The descriptor, or -1 where there is no connection."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether a part of the request is not out yet."""
        return len(self._left) > 0

    def begin(self, serial: int, intended: float, now: float) -> None:
        """Sends the next request, or as much of it as the socket takes."""
        request, stamp = self._requests[self._turn], self._stamps[self._turn]
        if stamp >= 0:
            request[stamp : stamp + len(STAMP)] = b"%08d" % (serial % 10 ** len(STAMP))
        self._turn = (self._turn + 1) % len(self._requests)
        self.busy, self.intended, self.sent = True, intended, now
        self._parts, self._received, self._whole = [], 0, -1
        self._left = memoryview(request)
        self.write()

    def write(self) -> None:
        """Sends more of the request."""
        assert self._socket is not None
        try:
            self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            # a server that refuses a body may answer and hang up before it has it all
            self._left = memoryview(b"")

    def read(self) -> bool:
        """Takes what has arrived; True when that ends a good answer.

        Raises:
            BadAnswerError: the answer is not good, or the server hung up in the middle of it. After a whole
                answer the connection is still of use.
        """
        assert self._socket is not None
        try:
            part = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            was_busy, begun = self.busy, self._received > 0
            self.close()
            if was_busy:
                raise BadAnswerError("cut short" if begun else "hung up without a response")
            return False  # an idle connection that the server no longer keeps
        if not self.busy:
            self.close()
            raise BadAnswerError("bytes that nobody asked for")
        self._parts.append(part)
        self._received += len(part)
        if self._whole < 0:
            self._read_head()
        if self._whole < 0 or self._received < self._whole:
            return False
        self._finish()
        return True

    def _read_head(self) -> None:
        data = b"".join(self._parts)
        self._parts = [data]
        end = data.find(_HEAD_END)
        if end < 0:
            if len(data) > _MOST_HEAD:
                self.close()
                raise BadAnswerError("no HTTP/1.1 response")
            return
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        length = head[at + 17 :].partition(b"\r\n")[0].strip() if at >= 0 else b""
        if not head.startswith(b"http/1.1 ") or not length.isdigit():
            self.close()
            raise BadAnswerError("no HTTP/1.1 response with a Content-Length")
        self._last = b"\r\nconnection: close" in head
        self._body = end + len(_HEAD_END)
        self._whole = self._body + int(length)

    def _finish(self) -> None:
        """Judges a whole answer."""
        first = self._parts[0]
        status, body = bytes(first[9:12]), self._body
        enough = body + max(len(self._expect), MOST_OF_AN_ERROR)
        if len(first) < min(enough, self._whole):
            first = b"".join(self._parts)
        excess = self._received - self._whole
        self.busy = False
        if self._last or excess or self.wants_to_write:
            self.close()
        detail = first[body : body + MOST_OF_AN_ERROR].decode("utf-8", "replace")
        if status != b"200":
            raise BadAnswerError(f"status {status.decode('ascii', 'replace')}", detail)
        if excess:
            raise BadAnswerError("longer than its Content-Length")
        if not first.startswith(self._expect, body):
            raise BadAnswerError("status 200 with another body than was asked for", detail)
