"""`ebseg batch` and `ebseg segment` as processes over drawn pictures: begun, killed, measured, compared."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.batch.place import OutputPlace
from service.batch.rows import Row
from service.batch.sinks import open_sink
from training.storybook.classes import CLASSES
from training.storybook.generate import HELD_OUT, scene_of
from training.storybook.scene import draw

ROOT = Path(__file__).parents[2]
SIZES = ((192, 256), (256, 192), (240, 320), (128, 128), (160, 352))  # pixels, height and width
VIEWS = 4  # of a scene: as it is drawn, and turned and mirrored; drawing costs as much as segmenting
BROKEN = 100  # of so many pictures one is cut short
SHARD = 32
NAMES = ("--classes", ",".join(CLASSES))
LOOK_S = 0.05


def _write_scene(folder: Path, scene: int, count: int) -> None:
    """A scene's pictures, whose names are below a count; those that are there stay."""
    paths = {index: folder / f"{index:06}.png" for index in range(scene * VIEWS, (scene + 1) * VIEWS)}
    wanted = {index: path for index, path in paths.items() if index < count and not path.exists()}
    if not wanted:
        return
    rng, kind, allowed = scene_of(0, HELD_OUT, scene)
    height, width = SIZES[scene % len(SIZES)]
    picture = draw(rng, kind, height=height, width=width, allowed=allowed).picture
    for index, path in wanted.items():
        view = picture[:, ::-1] if index % 2 else picture
        partial = path.with_suffix(".partial")
        turned = view[::-1] if index % VIEWS > 1 else view
        Image.fromarray(np.ascontiguousarray(turned)).save(partial, "PNG")
        if index % BROKEN == BROKEN // 2:
            partial.write_bytes(partial.read_bytes()[:1000])
        partial.rename(path)


def write_pictures(folder: Path, count: int) -> set[str]:
    """Draws what is missing of them, and gives the names of those that are broken."""
    folder.mkdir(parents=True, exist_ok=True)
    with get_context("spawn").Pool(2) as pool:
        pool.starmap(_write_scene, [(folder, scene, count) for scene in range(-(-count // VIEWS))])
    return {f"{index:06}.png" for index in range(BROKEN // 2, count, BROKEN)}


@contextmanager
def started(words: Sequence[str | Path], cores: int) -> Iterator["subprocess.Popen[str]"]:
    """`ebseg WORDS` as a group of processes, on so many cores."""
    own = set(sorted(os.sched_getaffinity(0))[:cores])
    process = subprocess.Popen(
        [sys.executable, "-m", "ebseg", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)


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


def killed(source: Path, out: Path, seed: int, shards: int) -> dict[str, int]:
    """Begins a run and kills all of it soon after a random one of its shards.

    Names and times of shards that were finished.
    """
    chance = random.Random(seed)
    last = chance.randint(1, max(1, shards // 2))
    words: list[str | Path] = ["batch", source, *NAMES, "--out", out, "--device", "cpu", "--workers", "2"]
    with started([*words, "--shard-size", str(SHARD)], 2) as process:
        while len(finished(out)) < last and process.poll() is None:
            time.sleep(LOOK_S)
        time.sleep(chance.uniform(0, 1))
    return finished(out)


def finished(out: Path) -> dict[str, int]:
    """Shards that are there, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def rows_of(out: Path) -> list[Row]:
    """All rows of finished shards, in order."""
    sink = open_sink(OutputPlace(str(out)), "parquet")
    return [row for number in sink.numbers() for row in sink.read(number)]


def segment(source: Path, masks: Path, cores: int) -> None:
    """`ebseg segment` over pictures that have no masks yet, by a process a core with a share of them each."""
    paths = [path for path in sorted(source.iterdir()) if not (masks / path.name).exists()]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                started(["segment", *paths[core::cores], *NAMES, "--out", masks, "--device", "cpu"], cores)
            )
            for core in range(min(cores, len(paths)))
        ]
        for process in running:
            process.communicate()


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


def _peak(pid: int) -> int:
    """Highest memory that a process has had, bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0][1]) * 1024 if lines else 0
