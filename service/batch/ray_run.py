"""A run on a Ray cluster: Ray Data takes shards to workers and starts as many of those as there is room for.

The shards, and what is made of them, are those of a run on one machine: either goes on where the other ended.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.exceptions import RayError

from service.batch.deaths import Attempt, Deaths, gave_up
from service.batch.listing import Item
from service.batch.place import OutputPlace
from service.batch.plan import BatchPlan
from service.batch.run import EXAMPLES, Progress, RunFailedError, RunResult, error_of
from service.batch.sinks import open_sink
from service.batch.worker import (
    Finished,
    PictureBegun,
    RowSegmenter,
    ShardTask,
    WorkerFailed,
    finished,
    segmenter_of,
    there,
)
from service.scheduling.picture_threads import cores

LOCAL_STORE = 512 << 20  # bytes for shards on their way, which are lists of paths
SHARDS_A_WORKER = 2  # shards of a worker: one that it does, and the next
USAGE_STATISTICS = "RAY_USAGE_STATS_ENABLED"  # sent to Ray's makers; off unless the user wants it
LISTS, WORKS = 1, 1  # cores that are reserved for the listing, and for each worker


class RayRun:
    """Runs a plan on Ray.

    Args:
        plan: what to do; workers get its first device, and everyone sees its input, output and checkpoint.
        progress: called with numbers of pictures that were done just now.
        known: called with those that were done before.
        address: of a cluster; None for a Ray of its own on this machine, which ends with the run.
        workers: as many; None for one and more, as Ray finds room and the cluster grows.
    """

    def __init__(
        self,
        plan: BatchPlan,
        progress: Progress,
        known: Progress,
        *,
        address: str | None,
        workers: int | None,
    ):
        self._plan = plan
        self._progress = progress
        self._known = known
        self._address = address
        self._workers = workers

    def run(self) -> RunResult:
        """Does all that is missing.

        Raises:
            UsageError: the input cannot be listed, or a worker cannot do what is asked for.
            RunFailedError: the cluster is away, a worker cannot go on, or workers die again and again.
        """
        result, began, listed = RunResult(), time.monotonic(), set[int]()
        before = frozenset(open_sink(OutputPlace(self._plan.out), self._plan.form).numbers())
        try:
            with _connected(self._address):
                for row in self._reports().iter_rows():
                    listed.add(int(row["number"]))
                    self._add(result, row["report"], is_new=row["number"] not in before)
        except (RayError, ConnectionError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunFailedError(f"Ray gave up: {reason}; what is finished is kept") from error
        result.seconds = time.monotonic() - began  # Ray and the model are started in it
        result.beyond = self._plan.beyond(before, listed)
        return result

    def _reports(self) -> Dataset:
        """A `Finished` or a `WorkerFailed` for each shard, in any order, while they are made."""
        gpus = 0 if self._device() == "cpu" else 1
        shards = ray.data.read_datasource(
            _Shards(self._plan), override_num_blocks=1, num_cpus=LISTS, concurrency=1
        )
        fixed = {"min_size": 1} if self._workers is None else {"size": self._workers}
        return shards.map_batches(
            RayWorker,
            fn_constructor_args=(self._plan, self._device(), ray.remote(num_cpus=0)(Deaths).remote()),
            batch_size=1,
            batch_format="pandas",
            compute=ActorPoolStrategy(**fixed, max_tasks_in_flight_per_actor=SHARDS_A_WORKER),
            num_cpus=WORKS,
            num_gpus=gpus,
        )

    def _device(self) -> str:
        """The plan's, or what the cluster has."""
        device = self._plan.devices[0]
        if device != "auto":
            return device
        return "cuda" if ray.cluster_resources().get("GPU") else "cpu"

    def _add(self, result: RunResult, report: Finished | WorkerFailed, *, is_new: bool) -> None:
        if isinstance(report, WorkerFailed):
            raise error_of(report)
        result.rows += report.rows
        result.errors += report.errors
        made = report.rows if is_new else report.segmented  # one whose worker died after it was finished too
        result.made += made
        result.skipped += report.rows - made
        if report.example is not None:
            result.examples.append(report.example)
        self._progress(made)
        self._known(report.rows - made)


class _Shards(Datasource):  # type: ignore[misc]  # Ray has no types for mypy
    """All shards of a plan's share, finished or not: a task that is run again gives the same ones again."""

    def __init__(self, plan: BatchPlan):
        super().__init__()
        self._plan = plan

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody knows."""
        return None

    def get_read_tasks(self, *args: Any, **kwargs: Any) -> list[ReadTask]:
        """One, whose blocks are a shard each and are made as they are wanted."""
        plan = self._plan

        def blocks() -> Iterator[pandas.DataFrame]:
            for number, shard in plan.shards():
                yield pandas.DataFrame({"number": [number], "items": [shard]})

        return [ReadTask(blocks, BlockMetadata(None, None, None))]


class RayWorker:
    """An actor that does shards; what goes wrong is a value, which the run raises.

    Args:
        plan: of the run.
        device: "cpu", or "cuda" for the GPU that Ray gives.
        deaths: handle of an actor that is a `Deaths`; Ray itself would try a deadly shard for ever.
    """

    def __init__(self, plan: BatchPlan, device: str, deaths: Any):
        self._plan = plan
        self._device = device
        self._deaths = deaths
        self._segmenter: RowSegmenter | None = None

    def __call__(self, shards: pandas.DataFrame) -> pandas.DataFrame:
        """A frame of shards to a frame of what became of them."""
        reports = [
            self._report(int(number), list(items))
            for number, items in zip(shards["number"], shards["items"], strict=True)
        ]
        return pandas.DataFrame({"number": shards["number"].to_numpy(), "report": reports})

    def _report(self, number: int, shard: list[Item]) -> Finished | WorkerFailed:
        plan = self._plan
        try:
            sink = open_sink(OutputPlace(plan.out), plan.form)
            about = there(sink, number)
            if about is not None and plan.is_done(about, shard):
                return Finished(about.rows, about.errors, segmented=0)
            attempt: Attempt = ray.get(self._deaths.begin.remote(number))
            if attempt.hopeless:
                return WorkerFailed(gave_up(f"over shard {number}"), usable=True, trace="")
            if self._segmenter is None:  # with as many threads as Ray gives it cores
                self._segmenter = segmenter_of(plan, self._device, torch_threads=None)
            wants_example = number // plan.share[1] < EXAMPLES

            def report(news: int | PictureBegun) -> None:
                if isinstance(news, PictureBegun):  # it is known before the picture can do harm
                    ray.get(self._deaths.picture.remote(number, news.index))

            task = ShardTask(number, shard, wants_example, attempt)
            done = finished(plan, sink, self._segmenter, task, report)
            self._deaths.ended.remote(number)
            return done
        except Exception as error:
            return WorkerFailed.of(error, None)


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or a Ray of this machine that ends with it."""
    own = (
        {"num_cpus": max(LISTS + WORKS, cores()), "object_store_memory": LOCAL_STORE}
        if address is None
        else {}
    )
    logging.getLogger("ray").setLevel(logging.WARNING)
    os.environ.setdefault(USAGE_STATISTICS, "0")  # Ray takes it from nowhere else
    ray.init(
        address or "local",
        include_dashboard=None if address else False,  # that of a cluster is not ours
        log_to_driver=False,
        logging_level=logging.WARNING,
        **own,
    )
    try:
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # byte: else shards, which are small, are one block for one worker
        yield
    finally:
        ray.shutdown()
