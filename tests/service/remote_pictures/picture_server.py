"""A web server of pictures, one of bad manners among them."""

import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.service.fakes import PNG
from tests.waiting import WAIT


class PictureServer(ThreadingHTTPServer):
    """Answers by the path that is asked for.

    Attributes:
        asked: path, and the headers Host, Accept-Encoding and Authorization, of each request.
        sent: bytes of the endless body.
        gone: set when a client of an endless or slow answer has hung up, or the server ends.
    """

    daemon_threads = True

    def __init__(self, tls: tuple[Path, Path] | None = None, *, ipv6: bool = False):
        self.address_family = socket.AF_INET6 if ipv6 else socket.AF_INET
        super().__init__(("::1" if ipv6 else "127.0.0.1", 0), _Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]
        self.asked: list[tuple[str, str | None, str | None, str | None]] = []
        self.sent = 0
        self.gone = threading.Event()
        self.redirects: dict[str, str] = {}

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: PictureServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        heard = [self.headers.get(name) for name in ("Host", "Accept-Encoding", "Authorization")]
        self.server.asked.append((self.path, heard[0], heard[1], heard[2]))
        self.close_connection = True
        place = self.server.redirects.get(self.path)
        if place is not None:
            self._head(302, Location=place)
        elif self.path == "/missing":
            self._head(404)
        elif self.path == "/gzip":
            self._head(200, **{"Content-Encoding": "gzip"})
        elif self.path == "/huge":
            self._head(200, **{"Content-Length": str(1 << 40)})
        elif self.path == "/nothing":
            self._head(200, **{"Content-Length": "0"})
        elif self.path == "/endless":
            self._head(200)
            self._go_on(b"x" * 65536)
        elif self.path == "/slow":
            self._head(200, **{"Content-Length": str(len(PNG))})
            self.wfile.write(PNG[:10])
            self.server.gone.wait(WAIT)
        elif self.path == "/silent":
            self.server.gone.wait(WAIT)
        elif self.path == "/endless-head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self._go_on(b"X-A: " + b"a" * 1000 + b"\r\n")
        elif self.path == "/no-http":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.7\r\n\r\n")
        elif self.path == "/endless-chunks":
            self._head(200, **{"Transfer-Encoding": "chunked"})
            self._go_on(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        elif self.path == "/no-chunk":
            self._head(200, **{"Transfer-Encoding": "chunked"})
            self.wfile.write(b"many\r\n" + PNG)
        elif self.path == "/two-lengths":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 9\r\n\r\n" + PNG)
        elif self.path == "/no-length":
            self._head(200, **{"Content-Length": "-1"})
            self.wfile.write(PNG)
        elif self.path == "/more":
            self._head(200, **{"Content-Length": "30"})
            self.wfile.write(PNG)
        elif self.path == "/packed":
            self._head(200)
            self.wfile.write(gzip.compress(bytes(1 << 20)))
        elif self.path == "/cut":
            self._head(200, **{"Content-Length": str(len(PNG))})
            self.wfile.write(PNG[:20])
        elif self.path == "/chunked":
            self._head(200, **{"Transfer-Encoding": "chunked"})
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG))
        else:
            self._head(200, **{"Content-Length": str(len(PNG)), "Content-Type": "image/png"})
            self.wfile.write(PNG)

    def _head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _go_on(self, piece: bytes) -> None:
        try:
            while not self.server.gone.is_set():
                self.wfile.write(piece)
                self.server.sent += len(piece)
        except OSError:
            self.server.gone.set()


@contextmanager
def picture_server(tls: tuple[Path, Path] | None = None, *, ipv6: bool = False) -> Iterator[PictureServer]:
    """The server in a thread, for as long as the block lasts."""
    with PictureServer(tls, ipv6=ipv6) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.gone.set()
            server.shutdown()
            thread.join(WAIT)
            assert not thread.is_alive()
