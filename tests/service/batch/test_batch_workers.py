"""Workers of a run that die, hang or fail, and what is made of it: real processes that do no work."""

import os
import signal
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.errors import CheckpointError
from model.vocabulary.classes import Vocabulary
from service.batch import run as run_module
from service.batch.deaths import ALONE, DEATHS, NEIGHBOURS, Deaths
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan, ids_digest
from service.batch.rows import Row, failed
from service.batch.run import BatchRun, RunFailedError, RunResult
from service.batch.sinks import open_sink
from service.batch.worker import DEADLY, READY, Finished, ShardTask, WorkerFailed, about_of, finished
from service.errors import UsageError
from service.scheduling.picture_threads import cores

SHARDS = 6
Work = Callable[[BatchPlan, str, Connection], None]


def note(plan: BatchPlan, text: str) -> int:
    """Writes a line, and says how many there were of it."""
    with (Path(plan.source).parent / "notes").open("a+") as file:
        file.seek(0)
        count = file.read().splitlines().count(text)
        file.write(f"{text}\n")
    return count


def done(plan: BatchPlan, pipe: Connection, task: ShardTask) -> None:
    rows = [failed(item["id"], "nothing to see") for item in task.items]
    open_sink(OutputPlace(plan.out), plan.form).write(
        task.number, rows, about_of(rows, ids_digest(task.items))
    )
    pipe.send(Finished(len(rows), len(rows), len(rows)))


def dies_over_shard_1(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(READY)
    while True:
        task = pipe.recv()
        note(plan, f"shard {task.number}")
        if task.number == 1:
            pipe.send(1)
            os.kill(os.getpid(), signal.SIGKILL)
        done(plan, pipe, task)


class Bomb:
    """A segmenter that dies over some pictures, and finds nothing in the others."""

    def __init__(self, plan: BatchPlan, deadly: tuple[str, ...]):
        self._plan = plan
        self._deadly = deadly

    def segment(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        for row in list(rows):
            note(self._plan, row["id"])
            if row["id"] in self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            yield failed(row["id"], "nothing to see")

    def close(self) -> None:
        pass


def meets_bombs(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(READY)
    sink, bomb = open_sink(OutputPlace(plan.out), plan.form), Bomb(plan, ("2.png", "3.png"))
    while True:
        pipe.send(finished(plan, sink, bomb, pipe.recv(), pipe.send))


def hangs_once(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(READY)
    while True:
        task = pipe.recv()
        if task.number == 2 and not note(plan, "hangs"):
            time.sleep(1e6)
        done(plan, pipe, task)


def dies_when_idle(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(READY)
    if note(plan, "began") == 0:
        pipe.close()
        os._exit(0)
    while True:
        done(plan, pipe, pipe.recv())


def loads_for_ever_but_one(plan: BatchPlan, device: str, pipe: Connection) -> None:
    if device == "slow":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(plan, "slow")
        time.sleep(1e6)
    pipe.send(READY)
    while True:
        done(plan, pipe, pipe.recv())


def takes_all(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(READY)
    while True:
        pipe.send(Finished(len(pipe.recv().items), 0, 0))


def finds_no_checkpoint(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(WorkerFailed.of(CheckpointError("it is damaged"), None))


def has_a_full_disk(plan: BatchPlan, device: str, pipe: Connection) -> None:
    pipe.send(WorkerFailed.of(OSError(28, "No space left on device"), None))


def has_a_fault(plan: BatchPlan, device: str, pipe: Connection) -> None:
    try:
        raise KeyError("nobody thought of it")
    except KeyError as error:
        pipe.send(WorkerFailed.of(error, None))


@pytest.fixture
def plan(tmp_path: Path) -> BatchPlan:
    (tmp_path / "list.txt").write_text("".join(f"{index}.png\n" for index in range(2 * SHARDS)))
    return BatchPlan(
        source=str(tmp_path / "list.txt"),
        out=str(tmp_path / "out"),
        request={"classes": ["a"]},
        checkpoint=None,
        form="folder",
        shard_size=2,
        devices=("first", "second"),
    )


def ran(plan: BatchPlan, work: Work, monkeypatch: pytest.MonkeyPatch) -> tuple[RunResult, list[int]]:
    """The result, and what progress was called with."""
    monkeypatch.setattr(run_module, "work", work)
    monkeypatch.setattr(run_module, "END_S", 1.0)
    progress: list[int] = []
    sink = open_sink(OutputPlace(plan.out), plan.form)
    return BatchRun(plan, sink, progress.append, progress.append, print).run(), progress


def shards(plan: BatchPlan) -> list[int]:
    return open_sink(OutputPlace(plan.out), plan.form).numbers()


def test_deaths_are_counted_by_shard(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard that kills its worker ends the run, however many others the workers do between."""
    with pytest.raises(RunFailedError, match="workers die again and again over shard 1"):
        ran(plan, dies_over_shard_1, monkeypatch)
    counts = Counter((Path(plan.source).parent / "notes").read_text().splitlines())
    assert counts["shard 1"] == DEATHS + 1
    assert 1 not in shards(plan)
    assert set(counts.values()) == {1, DEATHS + 1}


def test_a_picture_that_kills_its_workers_is_a_row_with_an_error(
    plan: BatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, progress = ran(replace(plan, shard_size=6, devices=("only",)), meets_bombs, monkeypatch)
    rows = [
        row for number in shards(plan) for row in open_sink(OutputPlace(plan.out), plan.form).read(number)
    ]
    assert [row["id"] for row in rows] == [f"{index}.png" for index in range(2 * SHARDS)]
    assert [row["id"] for row in rows if row["error"] == DEADLY] == ["2.png", "3.png"]
    assert (result.rows, result.made, sum(progress)) == (2 * SHARDS, 2 * SHARDS - 2, 2 * SHARDS)
    begun = Counter((Path(plan.source).parent / "notes").read_text().splitlines())
    assert (begun["2.png"], begun["3.png"], begun["8.png"]) == (1 + ALONE, ALONE, 1)


def test_when_pictures_and_when_the_machine_is_to_blame() -> None:
    deaths = Deaths()
    assert deaths.begin(7) == deaths.begin(8)  # nothing is known yet
    for index in range(NEIGHBOURS):
        for _ in range(ALONE):
            attempt = deaths.begin(7)
            assert (attempt.careful, attempt.hopeless) == (True, False)
            assert attempt.deadly == frozenset(range(index))
            deaths.picture(7, index)
    assert deaths.begin(7).hopeless  # so many in a row
    deaths.ended(7)
    assert not deaths.begin(7).careful
    assert [deaths.begin(8).hopeless for _ in range(DEATHS + 1)] == [False] * DEATHS + [True]


def test_a_worker_that_hangs_is_replaced(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours pass on the run's clock as soon as the worker hangs."""
    notes = Path(plan.source).parent / "notes"
    passed = 0.0

    def now() -> float:
        nonlocal passed
        if notes.exists():
            passed = 1e5
        return time.monotonic() + passed

    monkeypatch.setattr("service.batch.run.wait", lambda pipes, timeout: wait(pipes, min(timeout, 0.05)))
    monkeypatch.setattr("service.batch.run.time", SimpleNamespace(monotonic=now))
    result, progress = ran(replace(plan, devices=("only",)), hangs_once, monkeypatch)
    assert (result.rows, result.made, sum(progress)) == (2 * SHARDS,) * 3
    assert notes.read_text() == "hangs\nhangs\n"
    assert shards(plan) == list(range(SHARDS))


def test_a_worker_that_dies_before_it_has_work(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    result, progress = ran(replace(plan, devices=("only",)), dies_when_idle, monkeypatch)
    assert (result.rows, sum(progress)) == (2 * SHARDS, 2 * SHARDS)
    assert shards(plan) == list(range(SHARDS))


def test_a_worker_that_still_loads_at_the_end(plan: BatchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended, even one that does not end by itself."""
    result, _ = ran(replace(plan, devices=("slow", "fast")), loads_for_ever_but_one, monkeypatch)
    assert result.rows == 2 * SHARDS
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert not any(b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


@pytest.mark.parametrize(
    ("work", "kind", "message", "where"),
    [
        (finds_no_checkpoint, UsageError, "it is damaged", None),
        (has_a_full_disk, RunFailedError, "No space left on device", None),
        (has_a_fault, RuntimeError, "KeyError: 'nobody thought of it'", "in has_a_fault"),
    ],
)
def test_errors_of_workers(
    work: Work,
    kind: type[Exception],
    message: str,
    where: str | None,
    plan: BatchPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be done, what may succeed later, and what is a fault, which says where."""
    with pytest.raises(kind, match=message) as caught:
        ran(plan, work, monkeypatch)
    notes = getattr(caught.value, "__notes__", [])
    assert where in notes[0] if where else notes == []


def test_workers_share_the_cores(plan: BatchPlan) -> None:
    assert replace(plan, devices=("cpu",)).torch_threads == cores()
    assert replace(plan, devices=("cpu",) * 2).torch_threads == max(1, cores() // 2)
    assert replace(plan, devices=("cpu",) * 1000).torch_threads == 1


def test_a_manifest_holds_no_secrets(plan: BatchPlan) -> None:
    own = replace(plan, source="https://user:hidden@host/list.txt?signature=hidden")
    pinned = own.pinned("https://user:hidden@host/", "digest")
    assert "hidden" not in str(pinned)
    assert (pinned["source"], pinned["model"]) == ("https://host/list.txt", "https://host/")
    listed = replace(own, request={"vocabulary": "voc-20"}).pinned("m", "digest")
    assert listed["vocabulary_sha256"] == Vocabulary.builtin("voc-20").digest  # of what the name stands for


def test_memory_of_a_run_does_not_grow_with_its_list(
    plan: BatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run's own process holds at most, beyond what it held before: a shard or two."""
    peaks = []
    for count in (1_000, 30_000):
        Path(plan.source).write_text("".join(f"folder/{index:07}.png\n" for index in range(count)))
        own = replace(plan, out=f"{plan.out}-{count}", shard_size=500, devices=("only",))
        ran(replace(own, out=f"{own.out}-first"), takes_all, monkeypatch)  # imports, caches
        tracemalloc.start()
        try:
            result, _ = ran(own, takes_all, monkeypatch)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert result.rows == count
    assert peaks[1] - peaks[0] < 500_000  # 29,000 paths more, of 200 bytes and more each as items
