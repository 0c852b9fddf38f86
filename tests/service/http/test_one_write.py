"""A response's head and body go out in one write, in the order that they were written."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from service.http.one_write import MOST_JOINED, OneWrite
from tests.service.fakes import live
from tests.service.inference_protocol.wire import body, connected, head, read_answer


class Wire(asyncio.Transport):
    """Notes what is written to it, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    own = asyncio.new_event_loop()
    yield own
    own.close()


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


def test_two_that_follow_each_other_are_one(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire()
    writing = OneWrite(wire, loop)
    writing.write(b"head")
    writing.write(b"body")
    assert wire.pieces == [b"headbody"]
    turn(loop)
    assert wire.pieces == [b"headbody"]


def test_what_nothing_follows_goes_out_in_the_same_turn(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire()
    writing = OneWrite(wire, loop)
    writing.write(b"head")
    assert wire.pieces == []
    turn(loop)
    assert wire.pieces == [b"head"]
    writing.write(b"piece")
    writing.write(b"")
    assert wire.pieces == [b"head", b"piece"]


def test_a_large_body_is_not_copied(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire()
    writing = OneWrite(wire, loop)
    for size in (MOST_JOINED, MOST_JOINED + 1):
        writing.write(b"head")
        writing.write(bytes(size))
    assert [len(piece) for piece in wire.pieces] == [4 + MOST_JOINED, 4, MOST_JOINED + 1]


def test_closing_loses_nothing_and_a_connection_that_ended_gets_nothing(
    loop: asyncio.AbstractEventLoop,
) -> None:
    wire = Wire()
    writing = OneWrite(wire, loop)
    writing.write(b"head")
    writing.close()
    assert (wire.pieces, writing.is_closing()) == ([b"head"], True)
    other = Wire()
    writing = OneWrite(other, loop)
    writing.write(b"head")
    other.close()
    turn(loop)
    assert other.pieces == []


@pytest.mark.parametrize("path", ["/v1/segment", "/v1/models"])
def test_a_response_is_one_packet(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals, too; and heads without a body stay in front of the next response."""
    written: list[bytes] = []
    write = OneWrite.flush

    def noting(writing: OneWrite) -> None:
        written.append(writing._held)
        write(writing)

    monkeypatch.setattr(OneWrite, "flush", noting)
    with live() as (url, _), connected(url) as connection:
        asked = (
            head(len(body())) + body()
            if path == "/v1/segment"
            else b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n" % path.encode()
        )
        for _ in range(3):
            connection.sendall(asked)
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert not any(written)  # no head had to go alone
        connection.sendall(b"HEAD /livez HTTP/1.1\r\nHost: t\r\n\r\n" + asked)
        answers = read_answer(connection)
    assert re.findall(rb"HTTP/1.1 (\d+) ", answers) == [b"405", b"200"]
