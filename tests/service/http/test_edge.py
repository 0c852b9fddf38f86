"""Bounds on connections, headers, bodies and answers, with a real server on a socket."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from service.caller import site_of
from service.http.edge import MOST_PIPELINED
from tests.service.fakes import live
from tests.service.http.ends import GET, ended, is_gone, opened, refusal, refusal_of_application
from tests.service.inference_protocol.wire import body, connected, head, read_answer, segment
from tests.waiting import WAIT, wait_until


@contextlib.contextmanager
def several(url: str, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(url)) for _ in range(count)]


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\nX-A: ", b"a"),
        (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n"),
        (b"GET /", b"a"),
        (b"", b"\r\n"),
    ],
    ids=["one value", "many headers", "target", "empty lines"],
)
def test_endless_headers_are_refused(begin: bytes, piece: bytes) -> None:
    piece *= 1 << 14
    with live(max_header_bytes=10_000) as (url, service):
        with connected(url) as connection:
            connection.sendall(begin)
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 150_000_000:
                    connection.sendall(piece)
                    sent += len(piece)
                    if ended(service, "headers-too-large"):
                        break
            assert sent < 10_000_000
            refusal(read_answer(connection), 431, "headers-too-large")
        assert ended(service, "headers-too-large") == 1
        assert segment(url).status_code == 200


def test_a_head_is_measured_however_it_is_cut() -> None:
    with live(max_header_bytes=2000) as (url, service):
        for size, status in ((1500, 200), (2500, 431)):
            with connected(url) as connection:
                connection.sendall(GET[:-2] + b"X-A: " + b"a" * size + b"\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 %d " % status)
        assert ended(service, "headers-too-large") == 1


def test_what_stands_behind_a_body_is_bounded_too() -> None:
    """Trailers and chunks' extensions are headers to a parser, but of no use to us."""
    first = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with live(max_header_bytes=10_000) as (url, service):
        for flood in (b"1;x=" + b"a" * 300_000, b"0\r\n" + b"X-A: b\r\n" * 40_000):
            with connected(url) as connection:
                connection.sendall(first)
                with contextlib.suppress(ConnectionError):
                    for _ in range(20):
                        connection.sendall(flood)
                assert is_gone(connection)
        assert ended(service, "headers-too-large") + ended(service, "malformed") == 2
        with connected(url) as connection:  # a few are ignored
            connection.sendall(first + b"%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n" % (len(body()), body()))
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_slow_headers_are_refused() -> None:
    with live(header_timeout_s=0.4) as (url, service):
        with connected(url) as connection:
            began = time.monotonic()
            connection.settimeout(0.05)
            answer = b""
            for byte in GET[:10] + b"a" * 2000:
                connection.sendall(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
                    break
            assert time.monotonic() - began > 0.35
            refusal(answer, 408, "headers-too-slow")
        assert ended(service, "headers-too-slow") == 1
        assert ended(service, "idle") == 0


def test_silence_ends() -> None:
    """Before any request as well as between two."""
    with live(idle_timeout_s=0.4) as (url, service), connected(url) as never, connected(url) as between:
        between.sendall(GET)
        assert read_answer(between).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert never.recv(10) == b""
        assert between.recv(10) == b""
        assert time.monotonic() - began < WAIT
        wait_until(lambda: opened(service) == 0)
        assert ended(service, "idle") == 2


def test_one_connection_serves_many_requests() -> None:
    with live(idle_timeout_s=WAIT) as (url, service), connected(url) as connection:
        for _ in range(3):
            connection.sendall(head(len(body())) + body())
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert opened(service) == 1


def test_stalled_upload_is_refused_before_its_time_is_over() -> None:
    with live(stall_s=0.4, min_rate=1000) as (url, service):
        with connected(url) as connection:
            connection.sendall(head(100_000) + body()[:50])
            document = refusal_of_application(read_answer(connection), 408, "body-too-slow")
            assert "1000 bytes a second" in document["detail"]
        assert ended(service, "body-too-slow") == 1
        assert service.admission.pending == 0


def test_a_slow_upload_that_goes_on_is_taken() -> None:
    whole = body()
    with live(stall_s=0.2, min_rate=20) as (url, service), connected(url) as connection:
        connection.sendall(head(len(whole)))
        for at in range(0, len(whole), 40):
            connection.sendall(whole[at : at + 40])
            time.sleep(0.05)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert ended(service, "body-too-slow") == 0


def large_answer() -> bytes:
    """A request whose answer is some 17 MB."""
    text = body().replace(b"sky,tree", b"sky,tree\r\n--b\r\n" + LONG_SIDE + b"\r\n--b\r\n" + NPY)
    return head(len(text)) + text


LONG_SIDE = b'Content-Disposition: form-data; name="output_size"\r\n\r\n2600'
NPY = b'Content-Disposition: form-data; name="outputs"\r\n\r\nnpy'


def test_answers_that_nobody_reads_are_given_up() -> None:
    with live(stall_s=1.0, min_rate=1000) as (url, service), several(url, 8) as connections:
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(large_answer())
        wait_until(lambda: ended(service, "answer-too-slow") == 8)
        wait_until(lambda: opened(service) == 0)
        for connection in connections:
            assert is_gone(connection)
        assert segment(url).status_code == 200


def test_an_answer_that_is_taken_slowly_is_not_given_up() -> None:
    with live(stall_s=0.3, min_rate=1000) as (url, service), connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        connection.sendall(large_answer())
        answer = bytearray()
        began = time.monotonic()
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 14 if (slow := time.monotonic() - began < 1.5) else 1 << 20)
            if slow:
                time.sleep(0.02)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert len(answer) > 10_000_000
        assert ended(service, "answer-too-slow") == 0


def test_an_answer_has_an_end_however_it_drips() -> None:
    with live(answer_timeout_s=1.0, min_rate=0) as (url, service), connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(large_answer())
        until = time.monotonic() + WAIT
        with contextlib.suppress(ConnectionError):
            while connection.recv(100) and time.monotonic() < until:
                time.sleep(0.01)
        assert ended(service, "answer-too-slow") == 1


def test_too_many_connections_are_told_so() -> None:
    with live(max_connections=3) as (url, service), several(url, 3) as connections:
        for connection in connections:  # none of them is silent
            connection.sendall(head(10_000) + body()[:50])
        # their heads are read: what is silent would make room
        wait_until(lambda: opened(service) == 3 and service.memory.reserved == 3 * 50)
        with connected(url) as fourth:
            fourth.sendall(GET)
            refusal(read_answer(fourth), 503, "too-many-connections")
            assert is_gone(fourth)
        assert ended(service, "full") == 1
        assert opened(service) == 3
        connections[0].close()
        wait_until(lambda: opened(service) == 2)
        with connected(url) as fifth:
            fifth.sendall(GET)
            assert fifth.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_longest_silence_makes_room() -> None:
    with live(max_connections=3) as (url, service), several(url, 3) as connections:
        wait_until(lambda: opened(service) == 3)
        connections[0].sendall(GET)
        assert read_answer(connections[0]).startswith(b"HTTP/1.1 200 ")
        with connected(url) as fourth:
            fourth.sendall(GET)
            assert read_answer(fourth).startswith(b"HTTP/1.1 200 ")
        assert ended(service, "made-room") == 1
        assert connections[1].recv(10) == b""  # silent since it came
        connections[0].sendall(GET)
        assert read_answer(connections[0]).startswith(b"HTTP/1.1 200 ")


def test_one_address_has_its_share() -> None:
    with live(max_connections_per_address=2) as (url, service), several(url, 2):
        wait_until(lambda: opened(service) == 2)
        with connected(url) as third:
            document = refusal(read_answer(third), 503, "too-many-connections")
        assert "your address" in document["detail"]
        assert ended(service, "address-full") == 1
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), WAIT, source_address=("127.0.0.2", 0)) as other:
            other.sendall(GET)
            assert read_answer(other).startswith(b"HTTP/1.1 200 ")
    assert opened(service) == 0


def test_addresses_of_one_site_count_as_one() -> None:
    assert site_of("10.0.0.1") != site_of("10.0.0.2")
    assert site_of("::ffff:10.0.0.1") == site_of("10.0.0.1")
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:1")
    assert site_of("2001:db8:0:1::1") != site_of("2001:db8::1")
    assert site_of("fe80::1%eth0") == site_of("fe80::2")
    assert site_of(None) == site_of("") == ""


def test_requests_sent_ahead_are_bounded() -> None:
    with live() as (url, service):
        with connected(url) as connection:
            connection.sendall(GET * MOST_PIPELINED)
            answers = b""
            while answers.count(b"HTTP/1.1 200 ") < MOST_PIPELINED:
                answers += connection.recv(65536)
        with connected(url) as connection:
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    connection.sendall(GET * 10_000)
            assert is_gone(connection)
        assert ended(service, "pipelined") == 1
        assert segment(url).status_code == 200


def test_what_is_no_http_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with live() as (url, service):
        for text in (b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
            with connected(url) as connection:
                connection.sendall(text)
                refusal(read_answer(connection), 400, "malformed-request")
        assert ended(service, "malformed") == 3
    assert "Invalid HTTP" not in caplog.text


def test_a_server_with_all_kinds_of_connections_stops_in_time() -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        with live(max_connections=4) as (url, service):
            silent, partial, refused = (stack.enter_context(connected(url)) for _ in range(3))
            partial.sendall(GET[:20])
            refused.sendall(b"\0\0\0\r\n")
            read_answer(refused)
            served = stack.enter_context(connected(url))
            served.sendall(GET)
            read_answer(served)
            assert opened(service) == 3  # who was refused counts no more
            began = time.monotonic()
        assert time.monotonic() - began < WAIT / 2
        assert is_gone(silent)
