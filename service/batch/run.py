"""One machine's run: shards to worker processes, a device each, until every picture has its row.

A finished shard is the checkpoint: the same run again does what is missing. Workers that die are started
again, and their shard with them; whatever else fails ends the run with a sentence and loses no shard.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from service.batch.listing import Item
from service.batch.plan import BatchPlan, ids_digest
from service.batch.sinks import About, Sink
from service.batch.worker import Finished, work
from service.errors import UsageError

DEATHS = 3  # of workers in a row without a shard between, after which the run gives up
END_S = 5.0
EXAMPLES = 24  # pictures on the contact sheet

Progress = Callable[[int], None]
"""Called with pictures that were done just now."""


@dataclass(slots=True)
class RunResult:
    """What a run did.

    Attributes:
        rows, errors: of all finished shards of its share.
        skipped: pictures of shards that were finished before.
        made: pictures that were segmented now.
        seconds: from the first worker that had loaded its model to the last shard.
        examples: pictures to look at, as `sheet.SheetEntry`.
    """

    rows: int = 0
    errors: int = 0
    skipped: int = 0
    made: int = 0
    seconds: float = 0.0
    examples: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    device: str
    shard: tuple[int, list[Item]] | None = None
    ready: bool = False


class BatchRun:
    """Runs a plan.

    Args:
        plan: what to do.
        sink: where rows go, and what is there.
        progress: told of pictures.
    """

    def __init__(self, plan: BatchPlan, sink: Sink, progress: Progress):
        self._plan = plan
        self._sink = sink
        self._progress = progress
        self._result = RunResult()
        self._deaths = 0
        self._began: float | None = None
        self._again: list[tuple[int, list[Item]]] = []

    def run(self) -> RunResult:
        """Does all that is missing.

        Raises:
            UsageError: the input cannot be listed, a worker cannot work, or workers die again and again.
        """
        workers: list[_Worker] = []
        with closing(self._missing()) as missing, ExitStack() as stack:
            stack.callback(lambda: _end(workers))
            first = next(missing, None)
            if first is not None:
                self._again.append(first)
                workers += [self._started(device) for device in self._plan.devices]
                self._serve(workers, missing)
        if self._began is not None:
            self._result.seconds = time.monotonic() - self._began
        return self._result

    def _missing(self) -> Generator[tuple[int, list[Item]], None, None]:
        finished = self._sink.finished()
        for number, shard in self._plan.shards():
            about = finished.get(number)
            if about is not None and about.ids == ids_digest(shard) and not self._is_wanted(about):
                self._result.skipped += about.rows
                self._result.rows += about.rows
                self._result.errors += about.errors
                self._progress(about.rows)
            else:
                yield number, shard

    def _is_wanted(self, about: About) -> bool:
        return self._plan.retry_errors and about.errors > 0

    def _started(self, device: str) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, len(os.sched_getaffinity(0)) // len(self._plan.devices))
        process = context.Process(target=work, args=(self._plan, device, threads, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, device)

    def _serve(self, workers: list[_Worker], missing: Iterator[tuple[int, list[Item]]]) -> None:
        """Hands out shards until none is left and no worker has one."""
        while True:
            for worker in workers:
                if worker.ready and worker.shard is None:
                    worker.shard = self._again.pop() if self._again else next(missing, None)
                    if worker.shard is not None:
                        worker.pipe.send(worker.shard)
            busy = [worker for worker in workers if worker.shard is not None or not worker.ready]
            if not any(worker.shard for worker in workers) and all(worker.ready for worker in workers):
                return
            if not self._again and not any(worker.shard for worker in workers) and self._is_over(missing):
                return
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                self._hear(worker, workers)

    def _is_over(self, missing: Iterator[tuple[int, list[Item]]]) -> bool:
        one = next(missing, None)
        if one is not None:
            self._again.append(one)
        return one is None

    def _hear(self, worker: _Worker, workers: list[_Worker]) -> None:
        try:
            heard = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._replace(worker, workers)
            return
        if isinstance(heard, int):
            self._result.made += heard
            self._progress(heard)
        elif isinstance(heard, Finished):
            worker.shard, self._deaths = None, 0
            self._result.rows += heard.rows
            self._result.errors += heard.errors
            self._progress(heard.rows - heard.done_again)
            if heard.example is not None and len(self._result.examples) < EXAMPLES:
                self._result.examples.append(heard.example)
        elif heard == "ready":
            worker.ready = True
            self._began = self._began or time.monotonic()
        else:
            raise UsageError(str(heard))

    def _replace(self, worker: _Worker, workers: list[_Worker]) -> None:
        """A worker has died: another one takes its place, and its shard is done again."""
        worker.process.join()
        self._deaths += 1
        if self._deaths > DEATHS:
            raise UsageError(
                f"workers die again and again, the last one with exit code {worker.process.exitcode}; "
                "a picture may take more memory than there is: take fewer --workers or a lower --max-pixels. "
                "What is finished is kept"
            )
        if worker.shard is not None:
            self._again.append(worker.shard)
        workers[workers.index(worker)] = self._started(worker.device)


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()  # an idle worker ends by it; a busy one is in vain
        if worker.shard is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(END_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
