"""When the client asks again, how long it waits, and when it gives up."""

import asyncio
import json
import socket
import threading
import time
from email.utils import formatdate
from typing import get_args

import pytest

from ebseg_client import (
    AnswerError,
    AsyncEBSegClient,
    BusyError,
    ClientError,
    ConnectionFailedError,
    DeadlineError,
    DeadlineExceededError,
    EBSegClient,
    ProblemError,
    RequestRefusedError,
    Retry,
    ServiceFaultError,
    UnavailableError,
)
from ebseg_client import requests as sent
from ebseg_client.errors import BY_STATUS, BY_TYPE, problem_error
from ebseg_client.exchange import retry_after
from service.http.problems import KINDS
from service.schemas.segment import Output, SegmentRequest
from tests.service.scripted_server import ANSWER, Answer, breaking, problem, scripted

QUICK = Retry(attempts=4, first_wait=0.01, longest_wait=0.02)
OK = Answer()
BUSY = problem(429, "queue-full")


@pytest.mark.parametrize(
    ("answers", "sent_times"),
    [
        ((problem(429, "queue-full", 0), OK), 2),
        ((problem(503, "not-ready"), problem(503, "store-unavailable", 0), OK), 3),
        ((problem(408, "body-too-slow"), OK), 2),
        ((Answer(502, b"<html>bad gateway</html>"), Answer(503, b""), OK), 3),
    ],
)
def test_refused_for_now(answers: tuple[Answer, ...], sent_times: int) -> None:
    with scripted(*answers) as server, EBSegClient(server.url, retry=QUICK) as client:
        assert client.segment(b"p", ["sky"]).classes[0].area == 2
        heard = server.heard
    assert len(heard) == sent_times
    assert len({one.headers["x-request-id"] for one in heard}) == 1
    assert len({one.body.partition(b'name="request"')[0].partition(b"\r\n\r\n")[2] for one in heard}) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(503, "out-of-memory"), UnavailableError),
        (problem(500, "internal-error"), ServiceFaultError),
        (problem(504, "deadline-exceeded"), DeadlineExceededError),
        (Answer(504, b"gateway"), DeadlineExceededError),
        (Answer(418, b"teapot"), RequestRefusedError),
        (Answer(302, b"", [("Location", "/elsewhere")]), RequestRefusedError),
        (Answer(599, b"?"), ServiceFaultError),
    ],
)
def test_what_would_not_help_is_not_sent_again(answer: Answer, kind: type[ProblemError]) -> None:
    with scripted(answer) as server, EBSegClient(server.url, retry=QUICK) as client:
        with pytest.raises(kind) as caught:
            client.segment(b"p", ["sky"])
        assert len(server.heard) == 1
    assert caught.value.attempts == 1
    assert caught.value.status == answer.status
    assert "tried" not in str(caught.value)


def test_gives_up_after_its_attempts() -> None:
    with scripted(BUSY) as server, EBSegClient(server.url, retry=QUICK) as client:
        with pytest.raises(BusyError, match=r"T: queue-full \[429\]; tried 4 times \(request theirs\)"):
            client.models()
        assert len(server.heard) == 4


def test_retry_after_is_honoured() -> None:
    with (
        scripted(problem(429, "queue-full", 1), OK) as server,
        EBSegClient(server.url, retry=QUICK) as client,
    ):
        client.segment(b"p", ["sky"])
        first, second = server.heard
    assert 1.0 <= second.at - first.at < 1.3
    assert second.document["timeout_ms"] <= first.document["timeout_ms"] - 1000


def test_retry_after_may_be_a_date() -> None:
    assert retry_after("7") == 7
    assert retry_after(" 0 ") == 0
    assert retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=30)
    assert retry_after(formatdate(time.time() - 100, usegmt=True)) == 0
    for wrong in (None, "", "soon", "-1", "1.5", "٣"):
        assert retry_after(wrong) is None


def test_deadline_cuts_the_wait_short() -> None:
    """Waiting for a time that is not left would be in vain, so it is not begun."""
    with scripted(problem(503, "not-ready", 30)) as server, EBSegClient(server.url) as client:
        with pytest.raises(UnavailableError) as caught:  # not the error of a deadline
            client.segment(b"p", ["sky"], timeout=20)
        assert len(server.heard) == 1
    assert caught.value.retry_after == 30


def test_deadline_bounds_all_attempts() -> None:
    patient = Retry(attempts=1000, first_wait=0.02, longest_wait=0.02)
    with scripted(BUSY) as server, EBSegClient(server.url, timeout=0.3, retry=patient) as client:
        began = time.monotonic()
        with pytest.raises((BusyError, DeadlineError)):  # the end may come between two attempts or amid one
            client.models()
        assert time.monotonic() - began > 0.2
        assert 0 < len(server.heard) < 40  # each but the first after a wait of 0.01 s or more


@pytest.mark.parametrize("answer", [Answer(seconds=3.0), Answer(body=b"x" * 100, drip=0.03)])
def test_slow_answer_is_not_waited_for(answer: Answer) -> None:
    with scripted(answer) as server, EBSegClient(server.url, retry=QUICK) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineError, match="no response within 1 s") as caught:
            client.segment(b"p", ["sky"], timeout=1)
        assert time.monotonic() - began > 0.9
        assert len(server.heard) == 1
        assert caught.value.request_id == server.heard[0].headers["x-request-id"]


def test_deadline_goes_along() -> None:
    with scripted(OK) as server, EBSegClient(server.url, timeout=50) as client:
        client.segment(b"p", ["sky"])
        client.segment(b"p", ["sky"], timeout=1000)
        times = [one.document["timeout_ms"] for one in server.heard]
    assert 40_000 < times[0] <= 50_000
    assert times[1] == 120_000  # the longest that a service takes by default


def test_broken_connections() -> None:
    body = json.dumps(ANSWER).encode()
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with breaking(2, answer) as (url, served), EBSegClient(url, retry=QUICK) as client:
        assert client.segment(b"p", ["sky"]).width == 2
        assert len(served) == 3
    with breaking(9) as (url, served), EBSegClient(url, retry=QUICK) as client:
        with pytest.raises(ConnectionFailedError, match="tried 4 times"):
            client.segment(b"p", ["sky"])
        # nobody knows whether these were done, and twice is not as good as once
        for change in (lambda: client.rollback("m"), lambda: client.delete_vocabulary("v")):
            with pytest.raises(ConnectionFailedError) as caught:
                change()
            assert caught.value.attempts == 1


def test_roll_back_is_sent_again_when_the_service_refused_it() -> None:
    refused = problem(503, "not-ready")
    with scripted(refused, Answer(503, b"proxy")) as server, EBSegClient(server.url, retry=QUICK) as client:
        with pytest.raises(UnavailableError) as caught:
            client.rollback("m")
        assert [one.path for one in server.heard] == ["/v1/models/m:rollback"] * 2
    assert caught.value.type == ""


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with EBSegClient(f"http://127.0.0.1:{port}", retry=QUICK) as client:
        with pytest.raises(ConnectionFailedError, match=r"Connection refused.*tried 4 times") as caught:
            client.models()
        with pytest.raises(ConnectionFailedError, match="refused") as asked_once:
            client.health()
    assert caught.value.attempts == 4
    assert asked_once.value.attempts == 1


@pytest.mark.parametrize(
    "body", [b"<html>welcome</html>", b"{}", b"[]", json.dumps(ANSWER | {"classes": 3}).encode()]
)
def test_answer_of_something_else(body: bytes) -> None:
    with scripted(Answer(200, body)) as server, EBSegClient(server.url, retry=QUICK) as client:
        with pytest.raises(AnswerError, match="EBSeg service"):
            client.segment(b"p", ["sky"])
        assert len(server.heard) == 1


def test_answer_that_cannot_be_decoded() -> None:
    zipped = Answer(200, b"no gzip", [("Content-Encoding", "gzip")])
    with (
        scripted(zipped) as server,
        EBSegClient(server.url, retry=QUICK) as client,
        pytest.raises(AnswerError, match="cannot be read"),
    ):
        client.models()


def test_connections_are_used_again() -> None:
    with scripted(OK) as server:
        with EBSegClient(server.url) as client:
            for _ in range(20):
                client.segment(b"p", ["sky"])
            assert len({one.port for one in server.heard}) == 1
        with EBSegClient(server.url, connections=3) as client:
            list(client.segment_many([b"p"] * 60, ["sky"], parallel=8))
            assert server.together <= 3
            assert len({one.port for one in server.heard}) < 12  # 1 + 3, unless one idled until its end
    assert len(server.heard) == 80


@pytest.mark.anyio
async def test_async_calls_run_together_over_few_connections() -> None:
    with scripted(Answer(seconds=0.3)) as server:
        async with AsyncEBSegClient(server.url, connections=8) as client:
            await asyncio.gather(*(client.segment(b"p", ["sky"]) for _ in range(24)))
        assert len({one.port for one in server.heard}) <= 8
        assert 2 <= server.together <= 8


@pytest.mark.anyio
async def test_async_client_waits_without_blocking() -> None:
    with scripted(problem(429, "queue-full", 1), OK) as server:
        async with AsyncEBSegClient(server.url, retry=QUICK) as client:
            call = asyncio.create_task(client.segment(b"p", ["sky"]))
            turns = 0
            while not call.done():
                await asyncio.sleep(0.05)
                turns += 1
            assert (await call).width == 2
        assert server.heard[1].at - server.heard[0].at >= 1.0
    assert turns > 2  # 20 on a machine with nothing else to do; none if the wait blocked


@pytest.mark.anyio
async def test_async_call_can_be_cancelled_and_timed_out() -> None:
    with scripted(Answer(seconds=2.0)) as server:
        async with AsyncEBSegClient(server.url, retry=QUICK) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.segment(b"p", ["sky"])
            with pytest.raises(DeadlineError):
                await client.segment(b"p", ["sky"], timeout=0.1)


def test_closing_ends_a_wait() -> None:
    with scripted(problem(503, "not-ready", 50)) as server:
        client = EBSegClient(server.url)
        closer = threading.Timer(0.2, client.close)
        closer.start()
        began = time.monotonic()
        with pytest.raises(ConnectionFailedError, match="the client was closed"):
            client.segment(b"p", ["sky"])
        assert time.monotonic() - began < 40  # of 50
        closer.join()


@pytest.mark.anyio
async def test_closed_clients_send_nothing() -> None:
    with scripted() as server:
        client, other = EBSegClient(server.url), AsyncEBSegClient(server.url)
        client.close()
        await other.aclose()
        with pytest.raises(ConnectionFailedError, match=r"^the client was closed$"):
            client.models()
        with pytest.raises(ConnectionFailedError, match=r"^the client was closed$") as caught:
            await other.models()
        assert (caught.value.attempts, server.heard) == (0, [])


def test_redirection_is_told_and_not_followed() -> None:
    """The key of one service is not for another."""
    moved = Answer(301, b"", [("Location", "https://elsewhere.example/v1/models")])
    with scripted(moved) as server, EBSegClient(server.url, api_key="key " * 5 + "k") as client:
        with pytest.raises(RequestRefusedError, match=r"said to be at https://elsewhere\.example/v1/models"):
            client.models()
        assert len(server.heard) == 1


def test_key_and_path_before_v1_go_along() -> None:
    with scripted(OK) as server, EBSegClient(f"{server.url}/prefix/", api_key="k" * 16) as client:
        client.segment(b"p", ["sky"])
        (heard,) = server.heard
    assert heard.path == "/prefix/v1/segment"
    assert heard.headers["authorization"] == "Bearer " + "k" * 16
    assert heard.headers["accept"] == "application/json"


def test_waits_grow_and_vary() -> None:
    retry = Retry(first_wait=0.5, longest_wait=4)
    for attempt, longest in ((1, 0.5), (2, 1), (3, 2), (4, 4), (5, 4), (2000, 4)):
        waits = [retry.wait(attempt, None) for _ in range(200)]
        assert longest / 2 <= min(waits) < 0.6 * longest
        assert 0.9 * longest < max(waits) <= longest
    named = [retry.wait(1, 10) for _ in range(200)]
    assert 10 <= min(named) < 10.2
    assert 10.8 < max(named) <= 11
    for wrong in ({"attempts": 0}, {"first_wait": -1}, {"longest_wait": -1}):
        with pytest.raises(ValueError, match="at least one attempt"):
            Retry(**wrong)


def test_every_problem_of_the_service_has_an_error_of_its_own() -> None:
    plain = {ProblemError, ClientError}
    for kind in KINDS.values():
        if kind.status == 499:
            continue  # nobody is there to read it
        document = {"type": f"urn:ebseg:problem:{kind.slug}", "title": kind.title, "detail": "d"}
        error = problem_error(kind.status, document, "", None)
        assert error.is_own
        assert (error.type, error.status) == (kind.slug, kind.status)
        assert type(error) not in plain
    assert set(BY_TYPE) <= {kind.slug for kind in KINDS.values()}
    assert set(BY_STATUS) - {kind.status for kind in KINDS.values()} == {502}


def test_options_are_the_services() -> None:
    assert get_args(sent.Output) == get_args(Output)
    renamed = {"output_size": "long_side", "timeout_ms": "timeout"}
    fields = {renamed.get(name, name) for name in SegmentRequest.model_fields}
    assert fields == {"classes", *sent.SegmentOptions.__annotations__}
