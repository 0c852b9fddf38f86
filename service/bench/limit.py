"""What decoding pictures and encoding label maps alone allow on this machine: all cores, and nothing else.

As a script it is one worker: it reads a number of seconds a line from standard input, decodes and encodes in
as many threads as it was told for so long, and prints how many pictures a second that made.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from service.bench.process import ROOT

MAX_PIXELS = 50_000_000


class LimitPool:
    """Worker processes that wait for `rate`; a context manager that leaves none behind.

    Args:
        processes: so many.
        threads: of each.
        size: width and height of the pictures.
        classes: of the label map.
    """

    def __init__(self, processes: int, threads: int, size: tuple[int, int], classes: int):
        width, height = size
        options = {"threads": threads, "width": width, "height": height, "classes": classes}
        self._workers = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, *(f"--{name}={value}" for name, value in options.items())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            for _ in range(processes)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()

    def rate(self, seconds: float) -> float:
        """Pictures a second of all workers together.

        Raises:
            RuntimeError: a worker has ended.
        """
        try:
            for worker in self._workers:
                assert worker.stdin is not None
                print(seconds, file=worker.stdin, flush=True)
            answers = [worker.stdout.readline() for worker in self._workers if worker.stdout is not None]
            return sum(float(json.loads(answer)) for answer in answers)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"a worker of the limit has ended: {error}") from None


def measure(threads: int, size: tuple[int, int], classes: int, seconds: float) -> float:
    """Pictures a second that this process decodes and encodes with so many threads."""
    from service.bench.instant import label_map
    from service.bench.requests import class_names, jpeg, pictures
    from service.colors import class_colors
    from service.decode import decode
    from service.encode import label_png

    width, height = size
    files = [jpeg(picture) for picture in pictures(width, height)]
    names = class_names(classes)
    labels = label_map((height, width), classes)[0]
    end = time.perf_counter() + seconds
    counts = [0] * threads

    def work(index: int) -> None:
        while time.perf_counter() < end:
            decode(files[counts[index] % len(files)], max_pixels=MAX_PIXELS)
            label_png(labels, names, class_colors([None] * len(names)))
            counts[index] += 1

    began = time.perf_counter()
    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def main(argv: Sequence[str] | None = None) -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("threads", "width", "height", "classes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args(argv)
    for line in sys.stdin:
        size = (args.width, args.height)
        print(json.dumps(measure(args.threads, size, args.classes, float(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
