"""Requests to a server on a socket: whole ones by a client, and others byte by byte."""

import contextlib
import socket
from collections.abc import Iterator

import httpx

from service.bench.process import address
from service.bench.requests import form
from tests.service.fakes import PNG, another
from tests.waiting import WAIT

HEADERS = {"Content-Type": "multipart/form-data; boundary=b"}
# without keep-alive: each test has its server, and making a client takes longer than a request
CLIENT = httpx.Client(timeout=WAIT, limits=httpx.Limits(max_connections=100, max_keepalive_connections=0))


def segment(url: str, image: bytes | None = None, **fields: str) -> httpx.Response:
    """Sends a picture, each time another file, with two classes, or other fields; any number of threads."""
    data = {"classes": "sky,tree", **fields}
    image = another() if image is None else image
    return CLIENT.post(f"{url}/v1/segment", files={"image": ("p", image)}, data=data)


def body(image: bytes = PNG) -> bytes:
    """The body of such a request, to go with `HEADERS`."""
    return form([("classes", "", b"sky,tree"), ("image", "image/png", image)], "b")[1]


def head(length: int | str, *more: str) -> bytes:
    """What comes before a body, with more lines at its end."""
    lines = ["POST /v1/segment HTTP/1.1", "Host: t", f"Content-Type: {HEADERS['Content-Type']}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection that knows nothing of HTTP."""
    with socket.create_connection(address(url), timeout=WAIT) as connection:
        yield connection


def read_answer(connection: socket.socket) -> bytes:
    """Status, headers and the JSON document after them; the server may send it in pieces."""
    answer = b""
    while not answer.endswith(b"}"):
        part = connection.recv(65536)
        assert part
        answer += part
    return answer
