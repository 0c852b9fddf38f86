"""Rates of `ebseg batch`, a core a worker, beside the bare engine, which reads and writes nothing."""

import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from model.storage.packaged import packaged_checkpoint
from tests.load.offline_runs import SHARD, batch
from training.storybook.classes import CLASSES

LEAST_OF_ENGINE, LEAST_OF_TWO = 0.95, 1.8


def measured(paths: Sequence[str], folder: Path, *, cpu_time: bool) -> dict[str, Any]:
    """Rates of one worker and of two, of one engine and of two, over the same pictures.

    Args:
        paths: of good pictures, as often as each is to be segmented.
        folder: for lists and outputs.
        cpu_time: judge by the processors' seconds a picture, which start and loading are no part of, and not
            by the clock: for a machine that is busy.
    """
    rates, cpu_s = {}, {}
    for workers in (1, 2):
        for what, (rate, seconds) in (
            (f"engines_{workers}", _bare_rate(paths, workers)),
            (f"workers_{workers}", _batch_rate(paths, folder, workers)),
        ):
            rates[what], cpu_s[what] = rate, seconds
    by_clock = _ratios(rates)
    by_cpu = _ratios({what: int(what[-1]) / seconds for what, seconds in cpu_s.items()})
    judged = by_cpu if cpu_time else by_clock
    slow = (
        judged["two_workers_of_engines"] < LEAST_OF_ENGINE
        or judged["one_worker_of_engine"] < LEAST_OF_ENGINE
        or judged["two_workers_of_one"] < LEAST_OF_TWO
    )
    return {
        "rated": len(paths),
        "pictures_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": by_clock,
        "cpu_milliseconds_a_picture": {name: round(1000 * one, 2) for name, one in cpu_s.items()},
        "cpu_ratios": by_cpu,
        "violations": ["too slow"] if slow else [],
    }


def _bare(paths: Sequence[str], core: int, barrier: Any, rates: Any) -> None:
    """The engine alone on one core: it predicts and classifies; all else was done before."""
    os.sched_setaffinity(0, {core})
    import torch

    from service.batch.segmenter import BatchSegmenter

    torch.set_num_threads(1)
    segmenter = BatchSegmenter(packaged_checkpoint(), {"classes": list(CLASSES)}, device="cpu")
    loaded = segmenter._load()
    ready = [loaded.read((index, {"path": path})) for index, path in enumerate(paths)]
    pictures = [one for one in ready if not isinstance(one, tuple)]
    for one in {one.size: one for one in pictures}.values():  # each shape is met for the first time
        loaded.segmented([one])
    barrier.wait()
    began, cpu_began = time.monotonic(), time.process_time()
    for one in pictures:
        loaded.segmented([one])  # a CPU's batch
    cpu_s = time.process_time() - cpu_began
    rates.put((len(pictures) / (time.monotonic() - began), cpu_s / len(pictures)))


def _bare_rate(paths: Sequence[str], workers: int) -> tuple[float, float]:
    """Of so many engines at the same time, a core each: pictures a second of all, seconds a picture."""
    context = get_context("spawn")
    barrier, rates = context.Barrier(workers), context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        context.Process(target=_bare, args=(paths[index::workers], cores[index % len(cores)], barrier, rates))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    found = [rates.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rate for rate, _ in found), sum(cpu_s for _, cpu_s in found) / len(found)


def _batch_rate(paths: Sequence[str], folder: Path, workers: int) -> tuple[float, float]:
    """The same of a run: what it takes beyond a short one, whose start and loading cost as much."""
    short = max(workers * SHARD, len(paths) // 5 // (2 * SHARD) * 2 * SHARD)
    assert short < len(paths), f"more pictures than {short} are needed"
    spent = []
    for count in (short, len(paths)):
        listed = folder / f"{workers}-{count}.txt"
        listed.write_text("\n".join(paths[:count]))
        done = batch(listed, folder / f"out-{workers}-{count}", workers)
        assert (done["rows"], done["errors"]) == (count, 0)
        spent.append((count, done["seconds"], done["cpu_seconds"]))
    more, seconds, cpu_s = (long - less for less, long in zip(*spent, strict=True))
    return more / seconds, cpu_s / more


def _ratios(rates: Mapping[str, float]) -> dict[str, float]:
    """Of runs to engines, and of two workers to one."""
    found = {
        "one_worker_of_engine": rates["workers_1"] / rates["engines_1"],
        "two_workers_of_engines": rates["workers_2"] / rates["engines_2"],
        "two_workers_of_one": rates["workers_2"] / rates["workers_1"],
    }
    return {name: round(ratio, 3) for name, ratio in found.items()}
