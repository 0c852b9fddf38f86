"""`python -m tests.load.offline`: `ebseg batch` over Storybook pictures of mixed sizes; prints one JSON line.

One in a hundred pictures is broken. All processes are killed at a random moment, and the same command runs
again: its rows have to be those of `ebseg segment`, bit for bit, and what was finished has to have stayed.
Then the rates of one worker and of two, a core each, beside the bare engine, which reads, encodes and writes
nothing; and the memory of a run over a short and over a long list of pictures that are not there. On a busy
machine only the ratios mean something, and those little.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from model.storage.packaged import packaged_checkpoint
from service.batch.place import OutputPlace
from service.batch.rows import Row
from service.batch.sinks import open_sink
from training.storybook.classes import CLASSES
from training.storybook.generate import HELD_OUT, scene_of
from training.storybook.scene import draw

ROOT = Path(__file__).parents[2]
SIZES = ((192, 256), (256, 192), (240, 320), (128, 128), (160, 352))  # pixels, height and width
BROKEN = 100  # of so many pictures one is cut short
SHARD = 32
NAMES = ("--classes", ",".join(CLASSES))
LEAST_OF_ENGINE, LEAST_OF_TWO = 0.95, 1.8
MOST_GROWTH = 32 << 20  # bytes, between a thousand paths and a million
LOOK_S = 0.05


def write_pictures(folder: Path, count: int) -> set[str]:
    """Draws them, and gives the names of those that are broken."""
    broken = set()
    for index in range(count):
        rng, kind, allowed = scene_of(0, HELD_OUT, index)
        height, width = SIZES[index % len(SIZES)]
        path = folder / f"{index:06}.png"
        Image.fromarray(draw(rng, kind, height=height, width=width, allowed=allowed).picture).save(path)
        if index % BROKEN == BROKEN // 2:
            path.write_bytes(path.read_bytes()[:1000])
            broken.add(path.name)
    return broken


@contextmanager
def started(words: Sequence[str | Path], cores: int) -> Iterator["subprocess.Popen[str]"]:
    """`ebseg WORDS` as a group of processes, on so many cores."""
    own = set(sorted(os.sched_getaffinity(0))[:cores])
    process = subprocess.Popen(
        [sys.executable, "-m", "ebseg", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )
    with process:
        yield process


def batch(source: Path, out: Path, workers: int, *more: str) -> dict[str, Any]:
    """Runs `ebseg batch` to its end, and gives its last line, with the highest memory of its own process."""
    words: list[str | Path] = ["batch", source, *NAMES, "--out", out, "--device", "cpu", "--json", *more]
    peak = 0
    with started([*words, "--workers", str(workers), "--shard-size", str(SHARD)], workers) as process:
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(LOOK_S)
        assert process.stdout is not None
        line: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return line | {"peak_bytes": peak}


def killed(source: Path, out: Path, seed: int) -> int:
    """Begins a run and kills all of it at a random moment after its first shard; rows that were finished."""
    words: list[str | Path] = ["batch", source, *NAMES, "--out", out, "--device", "cpu", "--workers", "2"]
    with started([*words, "--shard-size", str(SHARD)], 2) as process:
        while not list(out.glob("part-*")) and process.poll() is None:
            time.sleep(LOOK_S)
        time.sleep(random.Random(seed).uniform(0, 5))
        os.killpg(process.pid, signal.SIGKILL)
    return len(rows_of(out))


def rows_of(out: Path) -> list[Row]:
    """All rows of finished shards, in order."""
    sink = open_sink(OutputPlace(str(out)), "parquet")
    return [row for number in sink.numbers() for row in sink.read(number)]


def differences(rows: Sequence[Row], pictures: Path, masks: Path, broken: set[str]) -> list[str]:
    """What of a run's rows is not as `ebseg segment` has it."""
    names = sorted(path.name for path in pictures.iterdir())
    found = [] if [row["id"] for row in rows] == names else ["a row is missing, double or out of order"]
    for row in rows:
        name = row["id"]
        if (row["error"] is not None) != (name in broken):
            found.append(f"{name}: error {row['error']!r}, though it is {name in broken} that it is broken")
        elif row["error"] is None and row["label_map"] != (masks / name).read_bytes():
            found.append(f"{name}: another label map than that of ebseg segment")
    return found


def bare(paths: Sequence[str], core: int, barrier: Any, rates: Any) -> None:
    """Pictures a second of the engine alone, on one core: predict and classify, all else done before."""
    os.sched_setaffinity(0, {core})
    import torch

    from service.batch.segmenter import BatchSegmenter

    torch.set_num_threads(1)
    segmenter = BatchSegmenter(packaged_checkpoint(), {"classes": list(CLASSES)}, device="cpu")
    loaded = segmenter._load()
    ready = [loaded.read((index, {"path": path})) for index, path in enumerate(paths)]
    pictures = [one for one in ready if not isinstance(one, tuple)]
    loaded.segmented(pictures[:1])
    barrier.wait()
    began = time.monotonic()
    for one in pictures:
        loaded.segmented([one])  # a CPU's batch
    rates.put(len(pictures) / (time.monotonic() - began))


def bare_rate(paths: Sequence[str], workers: int) -> float:
    """Of so many engines at the same time, a core each."""
    context = get_context("spawn")
    barrier, rates = context.Barrier(workers), context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        context.Process(target=bare, args=(paths[index::workers], cores[index % len(cores)], barrier, rates))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get() for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def memory(folder: Path, count: int) -> int:
    """Highest memory of a run's own process over a list of pictures that are not there, bytes."""
    listed = folder / f"{count}.txt"
    with listed.open("w") as file:
        for index in range(count):
            file.write(f"folder/{index:07}.jpg\n")
    line = batch(listed, folder / f"out-{count}", 1)
    assert (line["rows"], line["errors"]) == (count, count)
    return int(line["peak_bytes"])


def run(pictures: int, paths: int, seed: int) -> dict[str, Any]:
    """All of it; `violations` is what was not as it should be."""
    with tempfile.TemporaryDirectory(prefix="ebseg-offline-") as name:
        folder = Path(name)
        source, masks = folder / "pictures", folder / "masks"
        source.mkdir()
        broken = write_pictures(source, pictures)
        with started(["segment", source, *NAMES, "--out", masks, "--device", "cpu"], 1) as process:
            process.communicate()
        finished = killed(source, folder / "killed", seed)
        again = batch(source, folder / "killed", 2)
        violations = differences(rows_of(folder / "killed"), source, masks, broken)
        if (again["done_before"], again["segmented"]) != (finished, pictures - finished):
            violations.append(f"{finished} rows were finished, and then: {again}")
        rates: dict[str, float] = {}
        good = [str(path) for path in sorted(source.iterdir()) if path.name not in broken]
        for workers in (1, 2):
            rates[f"engines_{workers}"] = bare_rate(good, workers)
            done = batch(source, folder / f"out-{workers}", workers)
            rates[f"workers_{workers}"] = (pictures - len(broken)) / done["seconds"]
        peaks = {count: memory(folder, count) for count in (min(1000, paths), paths)}
    ratios = {
        "one_worker_of_engine": rates["workers_1"] / rates["engines_1"],
        "two_workers_of_engines": rates["workers_2"] / rates["engines_2"],
        "two_workers_of_one": rates["workers_2"] / rates["workers_1"],
    }
    if ratios["two_workers_of_engines"] < LEAST_OF_ENGINE or ratios["two_workers_of_one"] < LEAST_OF_TWO:
        violations.append("too slow")
    if max(peaks.values()) - min(peaks.values()) > MOST_GROWTH:
        violations.append("memory grows with the list")
    return {
        "pictures": pictures,
        "broken": len(broken),
        "finished_when_killed": finished,
        "load_average": os.getloadavg()[0],
        "pictures_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "peak_megabytes_by_paths": {str(count): round(peak / 1e6, 1) for count, peak in peaks.items()},
        "violations": violations,
    }


def _peak(pid: int) -> int:
    """Highest memory that a process has had, bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0][1]) * 1024 if lines else 0


def main() -> int:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.offline", description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000, help="that are segmented (default: 5000)")
    parser.add_argument("--paths", type=int, default=1_000_000, help="of the long list (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="of the moment of the kill (default: 0)")
    args = parser.parse_args()
    report = run(args.pictures, args.paths, args.seed)
    print(json.dumps(report))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
