"""Processes that end, by themselves or because they are told to, and the one door that they share."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import httpx
import pytest

from service.server import listen
from service.settings import SettingsError
from service.workers import counts, family
from service.workers.counts import SharedCount, new_count
from service.workers.family import run_workers
from service.workers.serve import serve
from tests.load.server import Server, started
from tests.service.fakes import FakeEngine, encoded, picture, settings
from tests.service.workers.processes import ask, children, connections_of
from tests.waiting import wait_until

PLACES = 4
SILENT = 3  # looks at a process without a sign of life
GRACE_S = 3
LATE_S = 20  # that processes may take to end, on a loaded machine
SECONDS = 1.0  # of a batch


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    """Three workers around an engine that takes a second for each batch."""
    with started(
        "tests.service.fakes", str(SECONDS), EBSEG_WORKERS="3", EBSEG_MAX_PENDING=str(PLACES)
    ) as server:
        server.wait()
        yield server


@pytest.fixture
def slow_again() -> Iterator[Server]:
    """Two workers around such an engine, which a test ends."""
    with started("tests.service.fakes", str(SECONDS), EBSEG_WORKERS="2") as server:
        server.wait()
        yield server


def status(server: Server, width: int) -> int:
    """Of a picture of its own; 0 if the connection breaks."""
    image = encoded(picture(6, width))
    with suppress(httpx.TransportError):
        return ask(server, "POST", "/v1/segment?classes=sky", content=image, headers=TYPE).status_code
    return 0


TYPE = {"Content-Type": "image/png"}


def test_places_are_given_at_one_door(slow: Server) -> None:
    with ThreadPoolExecutor(16) as clients:
        statuses = sorted(clients.map(lambda number: status(slow, 8 + number), range(16)))
    assert statuses == [200] * PLACES + [429] * (16 - PLACES)


def test_a_killed_worker_costs_its_own_requests_only(slow: Server) -> None:
    engine, *workers = children(slow)
    assert len(workers) == 3
    with ThreadPoolExecutor(PLACES) as clients:
        asked = [clients.submit(status, slow, 30 + number) for number in range(PLACES)]
        wait_until(lambda: slow.metrics().value("inflight") == PLACES, pause=0.02)
        victim = next(pid for pid in workers if connections_of(pid))
        os.kill(victim, signal.SIGKILL)
        statuses = [one.result() for one in asked]
    assert set(statuses) <= {0, 200}
    assert 0 in statuses
    wait_until(lambda: len(children(slow)) == 4 and victim not in children(slow), pause=0.02)
    assert children(slow)[0] == engine
    # what it held was given back
    wait_until(lambda: slow.metrics().value("inflight") == 0, pause=0.02)
    wait_until(lambda: slow.metrics().value("host_bytes", kind="reserved") == 0, pause=0.02)
    with ThreadPoolExecutor(PLACES) as clients:
        assert set(clients.map(lambda number: status(slow, 50 + number), range(PLACES))) == {200}
    (told,) = [line for line in slow.log_lines() if line["level"] == "warning"]
    assert told["message"] == "a worker ended, another one takes its place"
    assert told["exit_code"] == -signal.SIGKILL


def test_sigterm_drains_all_of_them(slow: Server) -> None:
    """The last test of this server."""
    with ThreadPoolExecutor(PLACES) as clients:
        asked: list[Future[int]] = [clients.submit(status, slow, 70 + number) for number in range(PLACES)]
        wait_until(lambda: slow.metrics().value("inflight") == PLACES, pause=0.02)
        family = children(slow)
        slow.terminate()
        assert [one.result() for one in asked] == [200] * PLACES
    assert slow.ended() == 0
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{slow.url}/livez")
    assert len(slow.log_lines()) == len(slow.log_text().splitlines())  # nothing else is printed
    assert not [line for line in slow.log_lines() if line["level"] in ("error", "critical")]
    messages = [line["message"] for line in slow.log_lines()]
    assert [one[:8] for one in messages if one.startswith(("ready", "stop"))] == [
        "ready in",  # of the engine's process, as the next one
        "stopping",
        "stopped",
    ]
    (stopping,) = [line for line in slow.log_lines() if line["message"].startswith("stopping")]
    assert stopping["message"] == "stopping: requests under way get at most 30 s"
    assert stopping["requests"] == PLACES


def test_an_engine_that_is_killed_is_told_in_words(slow_again: Server) -> None:
    """Nobody writes a traceback for it, and whoever waits is told to come again."""
    with ThreadPoolExecutor(PLACES) as clients:
        asked = [clients.submit(status, slow_again, 90 + number) for number in range(PLACES)]
        wait_until(lambda: slow_again.metrics().value("inflight") == PLACES, pause=0.02)
        family = children(slow_again)
        os.kill(family[0], signal.SIGKILL)
        assert {one.result() for one in asked} <= {503, 0}
    assert slow_again.ended() == 1
    wait_until(lambda: not [pid for pid in family if alive(pid)], pause=0.02)
    told = [line for line in slow_again.log_lines() if line["level"] not in ("debug", "info")]
    assert [line["message"] for line in told] == [
        "the process with the engine ended; the service ends with exit code 1"
    ]
    assert "Traceback" not in slow_again.log_text()


def test_a_worker_that_hangs_is_replaced() -> None:
    """It costs its own requests only; and a process with the engine that hangs ends the service."""
    with started("tests.service.workers.test_processes", EBSEG_WORKERS="2") as server:
        server.wait()
        engine, victim, other = children(server)
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: not alive(victim), pause=0.05)
        wait_until(lambda: len(children(server)) == 3, pause=0.05)
        assert {engine, other} < set(children(server))
        assert [status(server, 20 + number) for number in range(8)] == [200] * 8
        family_of_it = children(server)
        os.kill(engine, signal.SIGSTOP)
        assert server.ended() == 1
        wait_until(lambda: not [pid for pid in family_of_it if alive(pid)], pause=0.02)
        told = [line["message"] for line in server.log_lines() if line["level"] not in ("debug", "info")]
    assert told == [
        f"a worker hangs: no sign of life for {SILENT} s; it is killed",
        "a worker ended, another one takes its place",
        f"the process with the engine hangs: no sign of life for {SILENT} s; it is killed",
        "the process with the engine ended; the service ends with exit code 1",
    ]


def test_a_worker_that_hangs_with_a_lock_takes_nobody_along(tmp_path: Path) -> None:
    """All others wait for the lock and are silent, too, the engine's process among them."""
    stop = tmp_path / "stop"
    module = "tests.service.workers.test_processes"
    with started(module, EBSEG_WORKERS="2", STOP_IN_LOCK=str(stop)) as server:
        server.wait()
        engine = children(server)[0]
        stop.touch()
        with ThreadPoolExecutor(PLACES) as clients:
            asked = [clients.submit(status, server, 20 + number) for number in range(PLACES)]
            wait_until(lambda: "another one takes its place" in server.log_text(), pause=0.05)
            assert {one.result() for one in asked} <= {0, 200}
        wait_until(lambda: len(children(server)) == 3, pause=0.05)
        assert children(server)[0] == engine
        assert [status(server, 40 + number) for number in range(8)] == [200] * 8


def test_a_worker_is_to_blame_before_the_process_with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "_SILENT_LOOKS", SILENT)
    monkeypatch.setattr(family, "_LOOK_S", 0.0)
    file = new_count(3)
    killed: list[tuple[int, ...]] = []
    rows = [SharedCount(file, row) for row in range(3)]
    looked = object.__new__(family._Family)
    looked._draining, looked._looked, looked._engine_pid = 0, 0.0, 1
    looked._workers = [cast(Any, SimpleNamespace(pid=pid)) for pid in (2, 3)]
    looked._lives = [family._Life(count, born_at_once=count is not rows[0]) for count in rows]
    monkeypatch.setattr(looked, "_kill", lambda *pids: killed.append(pids))

    def look(times: int, *beating: SharedCount) -> list[tuple[int, ...]]:
        killed.clear()
        for _ in range(times):
            for count in beating:
                count.beat()
            looked._look()
        return list(killed)

    assert look(SILENT - 1) == []
    assert look(1) == [(2,), (3,)]  # neither began to serve; the engine's process may take its time for that
    assert look(1, *rows) == []
    assert look(SILENT - 1, rows[1]) == []
    assert look(1, rows[1]) == [(3,)]  # the engine's process is as silent, and gets its time once more
    assert look(SILENT - 1, *rows[1:]) == []
    assert look(1, *rows[1:]) == [(1,)]


def test_sigterm_while_a_device_hangs() -> None:
    """All processes end at the end of the grace period, and the log says why."""
    with started(
        "tests.service.fakes", "100000", EBSEG_WORKERS="2", EBSEG_DRAIN_TIMEOUT_S=str(GRACE_S)
    ) as server:
        server.wait()
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(status, server, 20)
            wait_until(lambda: server.metrics().value("batches_total", trigger="idle") == 1, pause=0.05)
            processes, began = children(server), time.monotonic()
            server.terminate()
            assert server.ended() == 1
            assert GRACE_S <= time.monotonic() - began < GRACE_S + LATE_S
            assert asked.result() != 200
        wait_until(lambda: not [pid for pid in processes if alive(pid)], pause=0.02)
        critical = [line["message"] for line in server.log_lines() if line["level"] == "critical"]
    assert critical[0].startswith("the device cpu hangs: no progress for ")


@pytest.mark.slow  # one more start
def test_without_the_one_that_looks_after_all_nobody_goes_on() -> None:
    with started("tests.service.fakes", "0", EBSEG_WORKERS="2") as server:
        server.wait()
        family = children(server)
        os.kill(server.pid, signal.SIGKILL)
        assert server.ended() == -signal.SIGKILL
        wait_until(lambda: not [pid for pid in family if alive(pid)], pause=0.02)
        assert [line for line in server.log_lines() if line["level"] == "critical"] == []


def test_a_taken_port_is_told() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}"):
            run_workers(settings(port=port, workers=2), FakeEngine())


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stopping_in_the_lock(stop: Path) -> Callable[[SharedCount], AbstractContextManager[None]]:
    """`SharedCount.whole`, in which the first worker that finds the file stops."""
    whole = SharedCount.whole

    @contextmanager
    def stopping(self: SharedCount) -> Iterator[None]:
        with whole(self):
            if self._row > counts._ROWS and stop.exists():
                stop.unlink()
                os.kill(os.getpid(), signal.SIGSTOP)
            yield

    return stopping


if __name__ == "__main__":  # a service whose processes are looked at as few times as here
    family._SILENT_LOOKS = SILENT
    if "STOP_IN_LOCK" in os.environ:
        patch.object(SharedCount, "whole", stopping_in_the_lock(Path(os.environ["STOP_IN_LOCK"]))).start()
    sys.exit(serve(settings(), FakeEngine()))
