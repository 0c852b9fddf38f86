"""SIGTERM to a real process: under load, while it loads, and twice. As a script: serves with a slow load."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.packaged import packaged_checkpoint
from service.app import create_app
from service.engine import Engine
from service.logging import configure
from service.server import run_server
from tests.e2e.soak.client import Connection, segment_request
from tests.service.fakes import PNG, FakeEngine, settings

ROOT = Path(__file__).parents[2]
WAIT = 40.0
GRACE = 30.0  # seconds that the service gives its requests by default
SECONDS = 0.4  # of a batch
CLIENTS = 32


@dataclass(slots=True)
class Process:
    """A server process and its log."""

    process: subprocess.Popen[str]
    log: Path
    port: int = 0

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged, whole lines only."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def get(self, path: str) -> httpx.Response:
        """A GET on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=WAIT)


@contextmanager
def process(tmp_path: Path, *args: str) -> Iterator[Process]:
    """`python -m ...` of a server, as soon as it listens."""
    log = tmp_path / "log"
    with log.open("w") as out:
        running = subprocess.Popen([sys.executable, "-m", *args], cwd=ROOT, stderr=out, text=True)
    served = Process(running, log)
    try:
        wait_for(lambda: any("address" in line for line in served.lines()))
        address = next(line["address"] for line in served.lines() if "address" in line)
        served.port = int(address.rpartition(":")[2])
        yield served
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(WAIT)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
        request = segment_request(PNG, {"classes": ["sky"]}, accept="application/json", request_id=name)
        try:
            answer = await connection.ask(request)
        except ConnectionRefusedError:
            seen.refused += 1
            return
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            partial = getattr(error, "partial", b"")
            assert partial == b"", "an answer was cut short"
            seen.unanswered.append(name)
            continue  # the next one tells whether it is gone
        assert answer.headers["x-request-id"] == name
        json.loads(answer.body)
        seen.answered[name] = answer.status


async def drained(served: Process, signals: int) -> tuple[Seen, float]:
    """Ends a server under load; returns what the clients saw, and the seconds until it was gone."""
    seen = Seen()
    clients = [asyncio.create_task(client(number, served.port, seen)) for number in range(CLIENTS)]
    async with asyncio.timeout(WAIT):
        while len(seen.answered) < CLIENTS:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        for _ in range(signals):
            served.terminate()
            await asyncio.sleep(SECONDS / 4)
        while served.process.poll() is None:
            await asyncio.sleep(0.01)
        seconds = time.monotonic() - began
        await asyncio.gather(*clients)
    return seen, seconds


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_under_load_answers_all_that_was_accepted(tmp_path: Path, signals: int) -> None:
    with process(tmp_path, "tests.service.fakes", str(SECONDS)) as served:
        wait_for(lambda: served.get("/readyz").status_code == 200)
        seen, seconds = asyncio.run(drained(served, signals))
        assert served.process.returncode == 0
        assert seconds < GRACE
        lines = served.lines()
    access = {line["request_id"]: line["status"] for line in lines if line["logger"] == "service.access"}
    accepted = {name: status for name, status in access.items() if name.startswith("client-")}
    # whatever the service took in, its client has got whole; what it did not, it never began
    assert accepted == seen.answered
    assert not set(seen.unanswered) & accepted.keys()
    assert set(accepted.values()) <= {200, 503}
    assert list(accepted.values()).count(200) > CLIENTS
    assert seen.refused == CLIENTS  # every client ended with that
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")]


def test_sigterm_while_the_model_loads(tmp_path: Path) -> None:
    with process(tmp_path, "tests.service.test_drain", "1.5") as served:
        ready = served.get("/readyz")
        assert ready.status_code == 503
        assert "loading" in ready.json()["detail"]
        began = time.monotonic()
        served.terminate()
        with contextlib.suppress(httpx.TransportError):  # until it hangs up it says that it goes
            while True:
                refused = served.get("/readyz")
                assert refused.status_code == 503
                time.sleep(0.02)
        assert served.process.wait(WAIT) == 0
        assert time.monotonic() - began < GRACE
        lines = served.lines()
    assert not [line for line in lines if line["level"] in ("warning", "error", "critical")]
    assert not [line for line in lines if line.get("message") == "model loaded"]


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
