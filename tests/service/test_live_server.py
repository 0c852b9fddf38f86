"""A real server on a socket: what only shows with bytes on a wire."""

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.http import body_limits
from tests.service.bad_pictures import announcing
from tests.service.fakes import PNG, FakeEngine, encoded, live, picture, problem
from tests.service.inference_protocol.wire import CLIENT, HEADERS, body, connected, head, read_answer, segment
from tests.waiting import WAIT, wait_until


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_many_clients_at_once_get_their_own_answers() -> None:
    images = [encoded(picture(4, width)) for width in range(2, 42)]
    with live(max_pending=40) as (url, service), ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda image: segment(url, image), images))
        assert [answer.status_code for answer in answers] == [200] * 40
        assert [answer.json()["size"]["width"] for answer in answers] == list(range(2, 42))
        assert len({answer.headers["x-request-id"] for answer in answers}) == 40
        assert service.admission.pending == 0


def test_client_that_hangs_up_frees_its_place_before_its_turn() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with live(engine) as (url, service), ThreadPoolExecutor(1) as clients:
        first = clients.submit(segment, url)
        assert engine.running.wait(WAIT)
        with connected(url) as connection:
            connection.sendall(head(len(body())) + body())
            wait_until(lambda: service.scheduler.depth == 1)
        wait_until(lambda: service.admission.pending == 1)
        gate.set()
        assert first.result().status_code == 200
        assert segment(url).status_code == 200
        text = CLIENT.get(f"{url}/metrics").text
    assert engine.batches == [1, 1]  # the abandoned one never ran
    assert 'ebseg_requests_total{code="499",model="fake",route="/v1/segment",version="3"} 1.0' in text
    assert 'ebseg_rejected_total{reason="client-gone"} 1.0' in text


def test_client_that_hangs_up_while_it_sends() -> None:
    with live() as (url, service):
        with connected(url) as connection:
            connection.sendall(head(10_000) + body()[:50])
            wait_until(lambda: service.memory.reserved == 50)
            assert service.admission.pending == 0  # a place is taken once the body is in
        wait_until(lambda: service.memory.reserved == 0)
        assert segment(url).status_code == 200


def test_slow_body_is_given_up() -> None:
    with live(body_timeout_s=1.0) as (url, service), connected(url) as connection:
        connection.sendall(head(10_000) + body()[:50])
        began = time.monotonic()
        answer = read_answer(connection)
        assert time.monotonic() - began > 0.9
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in answer
        assert b"urn:ebseg:problem:body-too-slow" in answer
        assert b"connection: close" in answer.lower()
        assert service.admission.pending == 0
        assert segment(url).status_code == 200


def test_dripping_body_is_given_up_too() -> None:
    """Each byte is quick, but all of them are not."""
    with live(body_timeout_s=0.2) as (url, _), connected(url) as connection:
        connection.sendall(head(10_000))
        connection.settimeout(0.02)
        answer = b""
        for byte in body():
            connection.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
                break
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_too_many_bytes_by_their_announcement() -> None:
    with live(max_bytes=1000) as (url, _):
        with connected(url) as connection:  # nothing of the body is waited for, nor asked for
            connection.sendall(head(1001, "Expect: 100-continue"))
            answer = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 413 ")
        large = CLIENT.post(f"{url}/v1/segment", content=b"x" * 5_000_000, headers=HEADERS)
        assert problem(large, 413)["type"] == "urn:ebseg:problem:too-many-bytes"
        assert segment(url).status_code == 200


def test_too_many_bytes_as_they_arrive() -> None:
    sent = []

    def parts() -> Iterator[bytes]:
        yield body()[:-20]  # the end of the picture is missing, and more comes
        for _ in range(200):
            sent.append(True)
            yield b"x" * 10_000

    with live(max_bytes=100_000) as (url, _):
        answer = CLIENT.post(f"{url}/v1/segment", content=parts(), headers=HEADERS)
        assert problem(answer, 413)["type"] == "urn:ebseg:problem:too-many-bytes"
        assert answer.headers["connection"] == "close"
        assert segment(url).status_code == 200
    assert sent


def test_endless_body_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its answer a refused client is listened to for a moment only."""
    monkeypatch.setattr(body_limits, "LINGER_S", 0.2)
    with live(max_bytes=1000) as (url, _), connected(url) as connection:
        connection.sendall(head(10**12))

        def hung_up() -> bool:
            try:
                connection.sendall(b"x" * 65536)
            except OSError:
                return True
            return False

        wait_until(hung_up, pause=0)


def test_three_broken_pictures_and_a_good_one_in_between() -> None:
    broken = [
        (b"a text in a file that is called photo.jpg\n" * 100, 415),
        (encoded(picture(300, 300))[:-500], 400),
        (announcing(60_000, 60_000), 413),
    ]
    with live() as (url, _):
        for image in (PNG, *(image for image, _ in broken)):  # what is loaded lazily is loaded now
            segment(url, image)
        before = resident()
        for _ in range(10):
            for image, status in broken:
                began = time.process_time()  # of the server, which is in this process, and of the client
                problem(segment(url, image), status)
                assert time.process_time() - began < 1
                assert segment(url).status_code == 200
        assert resident() - before < 16 << 20


def test_keep_alive_outlives_an_error_of_the_picture() -> None:
    with live() as (url, _), connected(url) as connection:
        reader = connection.makefile("rb")
        for image, status in ((b"text", b"415"), (PNG, b"200")):
            connection.sendall(head(len(body(image))) + body(image))
            assert reader.readline().split()[1] == status
            length = 0
            while line := reader.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            json.loads(reader.read(length))


def test_uploads_take_no_more_memory_than_they_have_reserved() -> None:
    """Bodies that never end: what they hold is counted, and bounded for all of them together."""
    size, clients = 8 << 20, 16
    with (
        live(body_timeout_s=WAIT, max_host_bytes=8 * size) as (url, service),
        contextlib.ExitStack() as stack,
    ):
        segment(url)
        before = resident()
        for _ in range(clients):
            connection = stack.enter_context(connected(url))
            with contextlib.suppress(ConnectionError):
                connection.sendall(head(size) + body()[:-20] + b"x" * (size - 1000))
        full = {"reason": "memory-full"}
        rejected = functools.partial(service.metrics.registry.get_sample_value, "ebseg_rejected_total", full)
        wait_until(lambda: (rejected() or 0) >= clients - 4)  # all others fit
        assert 2 * size < service.memory.reserved <= 4 * size  # half of it is for all but bodies
        assert resident() - before < 1.5 * 4 * size
        stack.close()
        wait_until(lambda: service.memory.reserved == 0)
        assert segment(url).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
def test_health_answers_while_the_engine_is_busy(path: str) -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with live(engine) as (url, _), ThreadPoolExecutor(1) as clients:
        working = clients.submit(segment, url)
        assert engine.running.wait(WAIT)
        assert CLIENT.get(url + path).status_code == 200
        gate.set()  # until now the engine could not go on
        assert working.result().status_code == 200
