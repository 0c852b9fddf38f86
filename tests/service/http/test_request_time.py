"""A request's time: from its first byte on, and never more than the service gives."""

import threading
import time

import pytest

from tests.service.fakes import FakeEngine, fields, live, post, problem, running
from tests.service.inference_protocol.wire import body, connected, head, read_answer

SLOW = 0.6  # seconds that a body takes, of a request that has 0.5
TIMED = b'--b\r\nContent-Disposition: form-data; name="timeout_ms"\r\n\r\n%d\r\n'


@pytest.mark.parametrize("at", [0, 1, 200], ids=["before the body", "at its first byte", "within it"])
def test_the_time_of_the_body_counts(at: int) -> None:
    engine = FakeEngine()
    whole = TIMED % 500 + body()
    with live(engine) as (url, _), connected(url) as connection:
        connection.sendall(head(len(whole)) + whole[:at])
        time.sleep(SLOW)  # its time is over after that, however long it really takes
        connection.sendall(whole[at:])
        answer = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"no response within 0.5 s" in answer or b"time of 0.5 s is over" in answer
        assert engine.batches == []


def test_a_slow_body_leaves_a_longer_time_its_rest() -> None:
    whole = TIMED % 100_000 + body()
    with live() as (url, _), connected(url) as connection:
        for _ in range(2):  # silence between two requests is of neither
            time.sleep(0.1)
            connection.sendall(head(len(whole)) + whole[:100])
            time.sleep(0.1)
            connection.sendall(whole[100:])
            assert read_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.anyio
async def test_more_time_than_there_is_is_lowered_and_said() -> None:
    async with running(max_timeout_ms=40_000) as (client, _):
        more = await post(client, {"classes": ["a"], "timeout_ms": 40_001})
        png = await post(client, {"classes": ["a"], "timeout_ms": 10**12}, headers={"Accept": "image/png"})
        exact = await post(client, {"classes": ["a"], "timeout_ms": 40_000})
        wrong = await post(client, {"classes": ["a"], "timeout_ms": 0})
    (warning,) = more.json()["warnings"]
    assert warning["code"] == more.headers["x-ebseg-warnings"] == png.headers["x-ebseg-warnings"]
    assert warning == {
        "code": "lowered-timeout",
        "message": "timeout_ms was 40001, and this service gives a request 40000 ms at the most: it had "
        "those.",
    }
    assert (more.status_code, png.status_code, exact.status_code) == (200, 200, 200)
    assert "warnings" not in exact.json()
    assert list(fields(problem(wrong, 422))) == ["timeout_ms"]


@pytest.mark.anyio
async def test_lowered_time_runs_out() -> None:
    gate = threading.Event()
    async with running(FakeEngine(gate=gate), timeout_ms=300, max_timeout_ms=400) as (client, _):
        try:
            late = await post(client, {"classes": ["a"], "timeout_ms": 3_600_000})
        finally:
            gate.set()
    assert "no response within 0.4 s" in problem(late, 504)["detail"]
