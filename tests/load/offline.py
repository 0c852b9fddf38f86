"""`python -m tests.load.offline`: `ebseg batch` over Storybook pictures of mixed sizes; prints one JSON line.

One in a hundred pictures is broken. All processes are killed at a random moment, and the same command runs
again: its rows have to be those of `ebseg segment`, bit for bit, and what was finished has to have stayed.
Then the rates of one worker and of two, a core each, beside the bare engine, which reads, encodes and writes
nothing; and the memory of a run over a short and over a long list of pictures that are not there. On a busy
machine `--cpu-time` judges by the processors' seconds a picture, which start and loading are no part of.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    """Runs `ebseg batch` to its end, and gives its last line.

    With the highest memory of its own process, and the processors' seconds of all.
    """
    words: list[str | Path] = ["batch", source, *NAMES, "--out", out, "--device", "cpu", "--json"]
    peak, before = 0, resource.getrusage(resource.RUSAGE_CHILDREN)
    with started([*words, "--workers", str(workers), "--shard-size", str(SHARD), *more], workers) as process:
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(LOOK_S)
        assert process.stdout is not None
        line: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return line | {"peak_bytes": peak, "cpu_seconds": cpu_s}


def killed(source: Path, out: Path, seed: int, shards: int) -> int:
    """Begins a run and kills all of it soon after a random one of its shards; rows that were finished."""
    chance = random.Random(seed)
    last = chance.randint(1, max(1, shards // 4))
    words: list[str | Path] = ["batch", source, *NAMES, "--out", out, "--device", "cpu", "--workers", "2"]
    with started([*words, "--shard-size", str(SHARD)], 2) as process:
        while len(list(out.glob("part-*"))) < last and process.poll() is None:
            time.sleep(LOOK_S)
        time.sleep(chance.uniform(0, 1))
        with suppress(ProcessLookupError):  # it has ended, on a machine that was busy with other things
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
    """Pictures a second, and seconds of the processor a picture, of the engine alone on one core.

    It predicts and classifies; all else was done before.
    """
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
    began, cpu_began = time.monotonic(), time.process_time()
    for one in pictures:
        loaded.segmented([one])  # a CPU's batch
    cpu_s = time.process_time() - cpu_began
    rates.put((len(pictures) / (time.monotonic() - began), cpu_s / len(pictures)))


def bare_rate(paths: Sequence[str], workers: int) -> tuple[float, float]:
    """Of so many engines at the same time, a core each: pictures a second of all, seconds a picture."""
    context = get_context("spawn")
    barrier, rates = context.Barrier(workers), context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    processes = [
        context.Process(target=bare, args=(paths[index::workers], cores[index % len(cores)], barrier, rates))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    found = [rates.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rate for rate, _ in found), sum(cpu_s for _, cpu_s in found) / len(found)


def batch_rate(paths: Sequence[str], folder: Path, workers: int) -> tuple[float, float]:
    """The same of a run; a short one before it tells the processors' seconds that a start costs."""
    spent = []
    for count in (len(paths) // 5, len(paths)):
        listed = folder / f"{workers}-{count}.txt"
        listed.write_text("\n".join(paths[:count]))
        done = batch(listed, folder / f"out-{workers}-{count}", workers)
        assert (done["rows"], done["errors"]) == (count, 0)
        spent.append((count, done["cpu_seconds"]))
    cpu_s = (spent[1][1] - spent[0][1]) / (spent[1][0] - spent[0][0])
    return len(paths) / done["seconds"], cpu_s


def memory(folder: Path, count: int) -> int:
    """Highest memory of a run's own process over a list of pictures that are not there, bytes."""
    listed = folder / f"{count}.txt"
    with listed.open("w") as file:
        for index in range(count):
            file.write(f"folder/{index:07}.jpg\n")
    line = batch(listed, folder / f"out-{count}", 1, "--shard-size", "256")
    assert (line["rows"], line["errors"]) == (count, count)
    return int(line["peak_bytes"])


def run(pictures: int, rated: int, paths: int, seed: int, *, cpu_time: bool) -> dict[str, Any]:
    """All of it; `violations` is what was not as it should be."""
    with tempfile.TemporaryDirectory(prefix="ebseg-offline-") as name:
        folder = Path(name)
        source, masks = folder / "pictures", folder / "masks"
        source.mkdir()
        broken = write_pictures(source, pictures)
        segment(source, masks, cores=2)
        finished = killed(source, folder / "killed", seed, -(-pictures // SHARD))
        again = batch(source, folder / "killed", 2)
        violations = differences(rows_of(folder / "killed"), source, masks, broken)
        if (again["done_before"], again["segmented"]) != (finished, pictures - finished):
            violations.append(f"{finished} rows were finished, and then: {again}")
        good = [str(path) for path in sorted(source.iterdir()) if path.name not in broken][:rated]
        rates, cpu_s = {}, {}
        for workers in (1, 2):
            for what, (rate, seconds) in (
                (f"engines_{workers}", bare_rate(good, workers)),
                (f"workers_{workers}", batch_rate(good, folder, workers)),
            ):
                rates[what], cpu_s[what] = rate, seconds
        peaks = {count: memory(folder, count) for count in (min(1000, paths), paths)}
    by_clock = ratios_of(rates)
    by_cpu = ratios_of({what: int(what[-1]) / seconds for what, seconds in cpu_s.items()})
    judged = by_cpu if cpu_time else by_clock
    if judged["two_workers_of_engines"] < LEAST_OF_ENGINE or judged["two_workers_of_one"] < LEAST_OF_TWO:
        violations.append("too slow")
    if max(peaks.values()) - min(peaks.values()) > MOST_GROWTH:
        violations.append("memory grows with the list")
    return {
        "pictures": pictures,
        "broken": len(broken),
        "finished_when_killed": finished,
        "load_average": os.getloadavg()[0],
        "rated": len(good),
        "pictures_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": by_clock,
        "cpu_milliseconds_a_picture": {name: round(1000 * one, 2) for name, one in cpu_s.items()},
        "cpu_ratios": by_cpu,
        "peak_megabytes_by_paths": {str(count): round(peak / 1e6, 1) for count, peak in peaks.items()},
        "violations": violations,
    }


def segment(source: Path, masks: Path, cores: int) -> None:
    """`ebseg segment` over a folder, by a process a core with a share of the files each."""
    paths = sorted(source.iterdir())
    with ExitStack() as stack:
        for index in range(cores):
            words: list[str | Path] = [
                "segment",
                *paths[index::cores],
                *NAMES,
                "--out",
                masks,
                "--device",
                "cpu",
            ]
            stack.enter_context(started(words, cores))


def ratios_of(rates: Mapping[str, float]) -> dict[str, float]:
    """Of runs to engines, and of two workers to one."""
    found = {
        "one_worker_of_engine": rates["workers_1"] / rates["engines_1"],
        "two_workers_of_engines": rates["workers_2"] / rates["engines_2"],
        "two_workers_of_one": rates["workers_2"] / rates["workers_1"],
    }
    return {name: round(ratio, 3) for name, ratio in found.items()}


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
    parser.add_argument(
        "--rated", type=int, default=600, help="of them whose rate is measured (default: 600)"
    )
    parser.add_argument("--paths", type=int, default=1_000_000, help="of the long list (default: 1000000)")
    parser.add_argument("--seed", type=int, default=0, help="of the moment of the kill (default: 0)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="judge by seconds of processors, not by the clock"
    )
    args = parser.parse_args()
    report = run(args.pictures, args.rated, args.paths, args.seed, cpu_time=args.cpu_time)
    print(json.dumps(report))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
