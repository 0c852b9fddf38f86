"""One machine's run: shards to worker processes, a device each, until every picture has its row.

A finished shard is the checkpoint: the same run again does what is missing. Workers that die, or are silent
for long, are started again, and their shard with them, see `deaths`; whatever else fails ends the run with a
sentence and loses no shard.
"""

import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from service.batch.deaths import DEATHS, Deaths, gave_up
from service.batch.listing import Item
from service.batch.plan import BatchPlan
from service.batch.sinks import Sink
from service.batch.worker import READY, Finished, PictureBegun, ShardTask, Waits, WorkerFailed, work
from service.errors import UsageError

SILENT_S = 1200.0  # of a worker that has work; twice what one picture may take of a running service
END_S = 5.0
EXAMPLES = 24  # pictures on the contact sheet

Progress = Callable[[int], None]
"""Called with a number of pictures; below 0 if they were lost and will be done again."""
Shard = tuple[int, list[Item]]


class RunFailedError(Exception):
    """A run that could not go on; the same command goes on where it ended."""


@dataclass(slots=True)
class RunResult:
    """What a run did.

    Attributes:
        rows, errors: of all finished shards of its share.
        skipped: pictures of shards that were finished before.
        made: pictures that were segmented now.
        seconds: from the first worker that had loaded its model to the last shard.
        examples: pictures to look at, as `sheet.SheetEntry`.
        beyond: shards that are there, and that the input has no pictures for: those of a longer one.
    """

    rows: int = 0
    errors: int = 0
    skipped: int = 0
    made: int = 0
    seconds: float = 0.0
    examples: list[Any] = field(default_factory=list)
    beyond: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Worker:
    """A process, its shard, the pictures of it that it has reported, and when it was heard of last."""

    process: BaseProcess
    pipe: Connection
    device: str
    heard: float
    shard: Shard | None = None
    ready: bool = False
    reported: int = 0

    @property
    def busy(self) -> bool:
        return self.shard is not None or not self.ready


class BatchRun:
    """Runs a plan.

    Args:
        plan: what to do.
        sink: where rows go, and what is there.
        progress: called with numbers of pictures that were done just now.
        known: called with those that were done before.
        waits: called with why a worker waits.
        silent_s: a worker that has work and reports nothing for so long is replaced.
    """

    def __init__(
        self,
        plan: BatchPlan,
        sink: Sink,
        progress: Progress,
        known: Progress,
        waits: Callable[[str], None],
        *,
        silent_s: float = SILENT_S,
    ):
        self._plan = plan
        self._sink = sink
        self._progress = progress
        self._known = known
        self._waits = waits
        self._silent_s = silent_s
        self._result = RunResult()
        self._deaths = Deaths()
        self._deaths_without_work = 0
        self._began: float | None = None
        self._again: list[Shard] = []
        self._workers: list[_Worker] = []

    def run(self) -> RunResult:
        """Does all that is missing.

        Raises:
            UsageError: the input cannot be listed, or a worker cannot do what is asked for.
            RunFailedError: a worker cannot go on, or workers die again and again.
        """
        with closing(self._missing()) as missing, ExitStack() as stack:
            stack.callback(self._end)
            if self._has_more(missing):
                self._workers += [self._started(device) for device in self._plan.devices]
                self._serve(missing)
        if self._began is not None:
            self._result.seconds = time.monotonic() - self._began
        return self._result

    def _missing(self) -> Generator[Shard, None, None]:
        there, listed = set(self._sink.numbers()), set[int]()
        for number, shard in self._plan.shards():
            listed.add(number)
            about = self._sink.about(number) if number in there else None
            if about is not None and self._plan.is_done(about, shard):
                self._result.skipped += about.rows
                self._result.rows += about.rows
                self._result.errors += about.errors
                self._known(about.rows)
            else:
                yield number, shard
        self._result.beyond = self._plan.beyond(there, listed)

    def _has_more(self, missing: Iterator[Shard]) -> bool:
        if not self._again and (shard := next(missing, None)) is not None:
            self._again.append(shard)
        return bool(self._again)

    def _started(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(self._plan, device, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, device, heard=time.monotonic())

    def _serve(self, missing: Iterator[Shard]) -> None:
        """Hands out shards until none is left and no worker has one."""
        while True:
            for worker in [worker for worker in self._workers if not worker.busy]:
                if self._has_more(missing):
                    self._give(worker, self._again.pop())
            if not self._has_more(missing) and not any(worker.shard for worker in self._workers):
                return
            self._wait()

    def _give(self, worker: _Worker, shard: Shard) -> None:
        attempt = self._deaths.begin(shard[0])
        if attempt.hopeless:
            raise RunFailedError(gave_up(f"over shard {shard[0]}"))
        worker.heard = time.monotonic()  # not later: it may have begun by then
        try:
            worker.pipe.send(ShardTask(*shard, len(self._result.examples) < EXAMPLES, attempt))
        except OSError:  # it has died while it had nothing to do
            self._again.append(shard)
            self._replace(worker)
            return
        worker.shard, worker.reported = shard, 0

    def _wait(self) -> None:
        """Takes what busy workers send; one that was silent for too long is killed, and its pipe ends."""
        busy = {worker.pipe: worker for worker in self._workers if worker.busy}
        patience = min(worker.heard for worker in busy.values()) + self._silent_s - time.monotonic()
        for pipe in wait(list(busy), timeout=max(0.0, patience)):
            worker = busy[pipe]  # type: ignore[index]  # they are those that were given
            worker.heard = time.monotonic()
            self._receive(worker)
        for worker in busy.values():
            if time.monotonic() - worker.heard > self._silent_s:
                worker.process.kill()
                worker.heard = time.monotonic()

    def _receive(self, worker: _Worker) -> None:
        try:
            received = worker.pipe.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        if isinstance(received, WorkerFailed):
            raise error_of(received)
        if isinstance(received, Finished):
            self._result.rows += received.rows
            self._result.errors += received.errors
            self._result.made += received.segmented
            self._progress(received.rows - worker.reported)
            if worker.shard is not None:
                self._deaths.ended(worker.shard[0])
            worker.shard = None
            if received.example is not None and len(self._result.examples) < EXAMPLES:
                self._result.examples.append(received.example)
        elif received == READY:
            worker.ready = True
            self._began = self._began or time.monotonic()
        elif isinstance(received, Waits):
            self._waits(received.why)
        elif isinstance(received, PictureBegun):
            assert worker.shard is not None, "who does images has a shard"
            self._deaths.picture(worker.shard[0], received.index)
        else:
            worker.reported += received
            self._progress(received)

    def _replace(self, worker: _Worker) -> None:
        """A worker has died: another one takes its place, and its shard is done again."""
        _stop(worker)
        if worker.shard is not None:
            self._again.append(worker.shard)
            self._progress(-worker.reported)
        else:
            self._deaths_without_work += 1
            if self._deaths_without_work > DEATHS:
                code = f"before they began, the last one with exit code {worker.process.exitcode}"
                raise RunFailedError(gave_up(code))
        self._workers[self._workers.index(worker)] = self._started(worker.device)

    def _end(self) -> None:
        for worker in self._workers:
            worker.pipe.close()  # an idle worker ends by it; what a busy one does is in vain
            if worker.busy:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_S)
            _stop(worker)


def _stop(worker: _Worker) -> None:
    """Ends a worker; one that even so does not end, as in a file system that hangs, is left behind."""
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(END_S)


def error_of(failed: WorkerFailed) -> Exception:
    """What the run raises for a worker that cannot go on."""
    if failed.trace:
        error = RuntimeError(failed.text)
        error.add_note(failed.trace)
        return error
    return RunFailedError(failed.text) if failed.usable else UsageError(failed.text)
