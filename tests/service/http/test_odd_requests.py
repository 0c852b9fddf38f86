"""Requests that are seldom sent, or never by friends, and what becomes of their connection."""

import threading
import time

import pytest

from service.http.body_limits import LINGER_S
from tests.service.fakes import FakeEngine, live
from tests.service.http.ends import GET, ended, is_gone, opened, refusal, refusal_of_application
from tests.service.inference_protocol.wire import body, connected, head, read_answer, segment
from tests.waiting import wait_until


def test_a_refusal_keeps_the_connection_if_the_body_is_here() -> None:
    whole = head(len(body())) + body()
    with live(api_keys=("k" * 16,)) as (url, service):
        with connected(url) as connection:
            for _ in range(3):  # nobody reads these bodies
                connection.sendall(whole)
                answer = read_answer(connection)
                refusal_of_application(answer, 401, "unauthorized")
                assert b"connection: close" not in answer.lower()
            assert opened(service) == 1
        with connected(url) as connection:
            connection.sendall(whole[:-1])
            answer = read_answer(connection)
            refusal_of_application(answer, 401, "unauthorized")
            assert b"connection: close" in answer.lower()
            connection.sendall(whole[-1:])
            assert is_gone(connection)


def test_who_asks_before_sending_is_refused_without_sending() -> None:
    with live(api_keys=("k" * 16,)) as (url, _), connected(url) as connection:
        connection.sendall(head(1000, "Expect: 100-continue"))
        began = time.monotonic()
        answer = read_answer(connection)
        refusal_of_application(answer, 401, "unauthorized")
        assert b"100 Continue" not in answer
        assert b"connection: close" in answer.lower()
        assert time.monotonic() - began < LINGER_S / 2  # it is told at once, before the connection's end
    with live() as (url, _), connected(url) as connection:
        connection.sendall(head(len(body()), "Expect: 100-continue"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body())
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA"


@pytest.mark.parametrize("cut", [1000, 20, -1], ids=["in one piece", "in the body", "before its end"])
def test_a_connection_stays_http_1(cut: int) -> None:
    """What offers HTTP/2, as Java's client does at first, gets its answer in HTTP/1.1, and may go on."""
    chunked = head(0, OFFER).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    pieces = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body()), body())
    with live() as (url, service), connected(url) as connection:
        for start, rest in ((head(len(body()), OFFER), body()), (chunked, pieces)):
            connection.sendall(start + rest[:cut])
            time.sleep(0.05)  # so that it arrives by itself
            connection.sendall(rest[cut:])
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(GET[:-2] + OFFER.encode() + b"\r\n\r\n" + GET)
        answers = b""
        while answers.count(b"HTTP/1.1 200 ") < 2:
            answers += connection.recv(65536)
        assert opened(service) == 1


@pytest.mark.parametrize("size", [b"-1", b"0x10", b"10000000000000000"])
def test_a_broken_body_is_told_so(size: bytes) -> None:
    first = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with live() as (url, service):
        with connected(url) as connection:
            connection.sendall(first + b"3\r\n--b\r\n" + size + b"\r\n")
            refusal(read_answer(connection), 400, "malformed-request")
            assert is_gone(connection)
        assert ended(service, "malformed") == 1
        wait_until(lambda: service.memory.reserved == 0)
        assert segment(url).status_code == 200


def test_what_follows_a_request_spoils_its_answer_not() -> None:
    gate = threading.Event()
    with live(FakeEngine(gate=gate)) as (url, _), connected(url) as connection:
        connection.sendall(head(len(body())) + body() + b"NO HTTP\r\n\r\n")
        assert is_gone(connection)  # no answer of another request comes in its place
        gate.set()
        assert segment(url).status_code == 200
