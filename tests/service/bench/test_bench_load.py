"""The load generator against a small server of our own."""

import base64
import contextlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.bench import load as load_module
from service.bench.connection import STAMP, LoadError
from service.bench.load import Load, LoadPlan, run_load, to_json
from service.bench.process import ROOT
from tests.waiting import WAIT

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BODY = b"x" * 200_000 + STAMP
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
Answer = Callable[[int], bytes | None]  # of the request's number; None hangs up


class Server:
    """Threads that read whole requests and send what `answer` says."""

    def __init__(self, answer: Answer):
        self.answer = answer
        self.bodies: list[bytes] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming, contextlib.suppress(OSError):
            while line := incoming.readline():
                length = 0
                while line.strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                    line = incoming.readline()
                with self.lock:
                    self.bodies.append(incoming.read(length))
                    number = len(self.bodies)
                answer = self.answer(number)
                if answer is None:
                    return
                connection.sendall(answer)
                if b"connection: close" in answer:
                    return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(WAIT)
            assert not thread.is_alive()


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


def run(answer: Answer, **values: Any) -> tuple[Load, Server]:
    with serving(answer) as server:
        plan = LoadPlan(**{"connections": 2, "seconds": 0.1, "timeout": WAIT, "requests": [REQUEST], **values,
                       "host": "127.0.0.1", "port": server.port})  # fmt: skip
        return run_load(plan), server


def test_closed_loop_keeps_connections_busy_and_alive() -> None:
    load, server = run(lambda number: OK, expect=b"ok", connections=3)
    assert load.errors == {}
    assert load.requests == len(server.bodies) >= 3
    assert server.connections == 3
    assert 0 < load.answered <= load.requests
    assert load.rate == pytest.approx(load.answered / 0.1)
    assert all(latency > 0 for latency in load.latencies)
    assert 0 < load.cpu_seconds < 5


def test_every_request_has_a_number_of_its_own_and_the_rest_is_as_it_was() -> None:
    _, server = run(lambda number: OK)
    stamps = {body[-len(STAMP) :] for body in server.bodies}
    assert len(stamps) == len(server.bodies)
    assert all(stamp.isdigit() for stamp in stamps)
    assert {body[: -len(STAMP)] for body in server.bodies} == {BODY[: -len(STAMP)]}


def test_requests_take_turns() -> None:
    requests = [b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n" + letter for letter in (b"a", b"b")]
    _, server = run(lambda number: OK, requests=requests, connections=1, seconds=0.5)
    assert len(server.bodies) > 1
    assert b"".join(server.bodies[:6]) == b"ababab"[: len(server.bodies)]


def test_warm_up_counts_neither_as_answered_nor_in_latencies() -> None:
    load, _ = run(lambda number: OK, seconds=0.05, warm_up=0.15)
    assert load.answered < load.requests
    assert len(load.latencies) < load.requests


def test_answer_in_pieces() -> None:
    """A head that is cut anywhere, and a body larger than a read."""
    large = b"y" * 400_000
    answer = b"HTTP/1.1 200 OK\r\ncontent-length:400000\r\nX: y\r\n\r\n" + large
    load, _ = run(lambda number: answer, expect=b"yyy")
    assert load.errors == {}
    assert load.requests > 0
    with serving(lambda number: None) as server:
        pieces = [OK[:12], OK[12:30], OK[30:]]

        def drip(connection: socket.socket) -> None:
            with connection:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.005)

        server._serve = drip  # type: ignore[method-assign]
        plan = LoadPlan(
            host="127.0.0.1", port=server.port, requests=[b"GET / HTTP/1.1\r\n\r\n"], seconds=0.001
        )
        assert run_load(plan).requests >= 1


def test_server_that_closes_after_each_answer() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok"
    load, server = run(lambda number: closing, expect=b"ok")
    assert load.errors == {}
    assert server.connections >= load.requests > 2


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n{'a': 12}", "status 503", "{'a': 12}"),
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n", "status 429", "status 429"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", "another body", "no"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokok", "longer than its Content-Length", "longer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "with a Content-Length", "HTTP"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP/1.1 response", "no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nconnection: close\r\n\r\nok", "cut short", "cut short"),
        (None, "hung up without a response", "hung up"),
    ],
)
def test_bad_answers_are_counted_and_the_load_goes_on(answer: bytes | None, kind: str, detail: str) -> None:
    """Every third answer is bad."""
    load, server = run(lambda number: answer if number % 3 == 0 else OK, expect=b"ok")
    [(reported, count)] = load.errors.items()
    assert kind in reported
    assert detail in load.first_error
    assert count == len(server.bodies) // 3 > 0
    assert load.requests == len(server.bodies) - count


def test_silent_server_is_given_up() -> None:
    gate = threading.Event()

    def answer(number: int) -> bytes:
        gate.wait(WAIT)
        return OK

    with serving(answer) as server:
        plan = LoadPlan(
            host="127.0.0.1", port=server.port, requests=[REQUEST], connections=2, seconds=0.05, timeout=0.1
        )
        load = run_load(plan)
        gate.set()
    assert load.errors == {"no response within 0.1 s": 2}
    assert load.requests == 0


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LoadError, match=f"cannot connect to 127.0.0.1 port {port}: Connection refused"):
        run_load(LoadPlan(host="127.0.0.1", port=port, requests=[REQUEST]))


def test_open_loop_sends_what_arrives() -> None:
    load, server = run(lambda number: OK, rate=200.0, seconds=0.5, connections=4)
    assert load.errors == {}
    assert load.requests == len(server.bodies) == len(load.latencies) - load.unsent
    assert 60 < len(load.latencies) < 140  # 100 with a deviation of 10


def test_latency_counts_from_when_a_request_was_to_start() -> None:
    """One connection, 40 ms an answer, 100 arrivals a second: each waits for all before it."""

    def answer(number: int) -> bytes:
        time.sleep(0.04)
        return OK

    load, server = run(answer, rate=100.0, seconds=0.4, connections=1)
    assert len(server.bodies) < 15
    assert load.unsent > 10
    assert len(load.latencies) == load.requests + load.unsent
    assert max(load.latencies) > 0.2  # from the request's sending it would be 0.04


def test_script_takes_a_plan_and_prints_a_load() -> None:
    with serving(lambda number: OK) as server:
        plan = LoadPlan(host="127.0.0.1", port=server.port, requests=[REQUEST], expect=b"ok", seconds=0.05)
        command = [sys.executable, "-m", "service.bench.load"]
        done = subprocess.run(
            command, cwd=ROOT, input=to_json(plan), capture_output=True, text=True, check=True
        )
    found = json.loads(done.stdout)
    assert found["requests"] == len(server.bodies) > 0
    assert found["errors"] == {}


def test_script_fails_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    text = to_json(LoadPlan(host="127.0.0.1", port=port, requests=[b"\xff"]))
    assert base64.b64encode(b"\xff").decode() in text
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert load_module.main() == 1
    assert "cannot connect" in capsys.readouterr().err
