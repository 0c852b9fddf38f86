"""SIGTERM to a real process: under load, while it loads, and twice. As a script: serves with a slow load."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from model.storage.packaged import packaged_checkpoint
from service.app import create_app
from service.bench.requests import segment_request
from service.observability.logging import configure
from service.scheduling.engine import Engine
from service.server import run_server
from tests.load.client import Connection
from tests.load.server import Server, started
from tests.service.fakes import PNG, FakeEngine, settings
from tests.service.inference_protocol.wire import segment
from tests.waiting import WAIT, wait_until

GRACE = {"EBSEG_DRAIN_TIMEOUT_S": "600"}  # seconds: whoever waits for its end is given up before it
SECONDS = 0.4  # of a batch
LATE_S = 20.0  # that a process may take to end, on a loaded machine
CLIENTS = 32


@dataclass(slots=True)
class Seen:
    """What clients got, by request id."""

    answered: dict[str, int] = field(default_factory=dict)  # statuses
    unanswered: list[str] = field(default_factory=list)  # hung up on, before a first byte
    refused: int = 0  # connections


async def client(number: int, port: int, seen: Seen) -> None:
    """Sends one request after the other, until the service takes no more."""
    connection = Connection("127.0.0.1", port)
    for count in range(1000):
        name = f"client-{number}-{count}"
        request = segment_request(
            PNG, {"classes": ["sky"]}, accept="application/json", headers={"X-Request-ID": name}
        )
        try:
            answer = await connection.ask(request)
        except ConnectionRefusedError:
            seen.refused += 1
            return
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            partial = getattr(error, "partial", b"")
            assert partial == b"", "a response was cut short"
            seen.unanswered.append(name)
            continue  # the next one tells whether it is gone
        assert answer.headers["x-request-id"] == name
        json.loads(answer.body)
        seen.answered[name] = answer.status


async def drained(served: Server, signals: int) -> Seen:
    """Ends a server under load; returns what the clients saw."""
    seen = Seen()
    clients = [asyncio.create_task(client(number, served.port, seen)) for number in range(CLIENTS)]
    async with asyncio.timeout(WAIT):
        while len(seen.answered) < CLIENTS:
            await asyncio.sleep(0.01)
        for _ in range(signals):
            served.terminate()
            await asyncio.sleep(SECONDS / 4)
        while served.running:
            await asyncio.sleep(0.01)
        await asyncio.gather(*clients)
    return seen


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_under_load_answers_all_that_was_accepted(signals: int) -> None:
    with started("tests.service.fakes", str(SECONDS), **GRACE) as served:
        served.wait()
        seen = asyncio.run(drained(served, signals))
        assert served.ended() == 0
        lines = served.log_lines()
        assert len(lines) == len(served.log_text().splitlines())  # nothing else is printed
    access = {line["request_id"]: line["status"] for line in lines if line["logger"] == "service.access"}
    accepted = {name: status for name, status in access.items() if name.startswith("client-")}
    # whatever the service took in, its client has got whole; what it did not, it never began
    assert accepted == seen.answered
    assert not set(seen.unanswered) & accepted.keys()
    assert set(accepted.values()) <= {200, 503}
    assert list(accepted.values()).count(200) > CLIENTS
    assert seen.refused == CLIENTS  # every client ended with that
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")]
    (stopping,) = [line for line in lines if line["message"].startswith("stopping")]
    assert stopping["message"] == "stopping: requests under way get at most 600 s"
    assert 0 < stopping["requests"] <= CLIENTS
    assert lines[-1]["message"] == "stopped"


def test_two_ctrl_c_end_it_at_once_in_words() -> None:
    with started("tests.service.fakes", "2", **GRACE) as served:
        served.wait()
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(segment, served.url)
            wait_until(lambda: served.metrics().value("inflight") == 1, pause=0.02)
            os.kill(served.pid, signal.SIGINT)
            wait_until(lambda: "stopping" in served.log_text(), pause=0.02)
            os.kill(served.pid, signal.SIGINT)
            assert asked.result().status_code == 503
        assert served.ended() == 0
        lines = served.log_lines()
    assert [line["message"] for line in lines if line["level"] not in ("debug", "info")] == []
    assert "Traceback" not in str(lines)


def test_sigterm_while_the_model_loads() -> None:
    with started("tests.service.test_drain", "1.5", **GRACE) as served:
        served.wait_for_address()
        ready = httpx.get(f"{served.url}/readyz")
        assert ready.status_code == 503
        assert "loading" in ready.json()["detail"]
        served.terminate()
        with contextlib.suppress(httpx.TransportError):  # until it hangs up it says that it goes
            while True:
                refused = httpx.get(f"{served.url}/readyz")
                assert refused.status_code == 503
                time.sleep(0.02)
        assert served.ended() == 0
        lines = served.log_lines()
        assert len(lines) == len(served.log_text().splitlines())  # nothing else is printed
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")]
    assert not [line for line in lines if line.get("message") == "model loaded"]


def test_sigterm_while_a_device_hangs() -> None:
    """It ends all the same, at the end of the grace period, and says why."""
    with started("tests.service.fakes", "100000", EBSEG_DRAIN_TIMEOUT_S="3") as served:
        served.wait()
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(segment, served.url)
            wait_until(lambda: served.metrics().value("batches_total", trigger="idle") == 1, pause=0.05)
            began = time.monotonic()
            served.terminate()
            assert served.ended() == 1
            assert 3.0 <= time.monotonic() - began < 3.0 + LATE_S
            # uvicorn may have come first, with an answer to the request that it cancelled
            assert asked.exception() is not None or asked.result().status_code != 200
        (reported,) = [line for line in served.log_lines() if line["level"] == "critical"]
    assert reported["message"].startswith("the device cpu hangs: no progress for ")


def slow(seconds: float) -> Callable[..., Engine]:
    """Makes a fake engine of any folder, in so many seconds."""

    def load(folder: Path, *, device: str, dtype: str, verify_digests: bool) -> Engine:
        time.sleep(seconds)
        return FakeEngine()

    return load


if __name__ == "__main__":
    configure("info", "json")
    own = settings(checkpoint=packaged_checkpoint())
    run_server(create_app(own, load=slow(float(sys.argv[1]))), own)
