"""What decoding pictures and encoding label maps alone allow on this machine: all cores, and nothing else.

As a script it is one worker: it reads a number of seconds a line from standard input, decodes and encodes in
as many threads as it was asked for so long, and prints how many pictures a second that made.
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

from service.bench.pictures import class_names, jpeg, label_map, pictures
from service.bench.process import ROOT
from service.options import MAX_PIXELS
from service.segmentation.colors import class_colors
from service.segmentation.decode import decode
from service.segmentation.render import Labels, label_png

WARM_UP = 0.2  # seconds


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
                [
                    sys.executable,
                    "-m",
                    __spec__.name,
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
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


def measure(files: Sequence[bytes], labels: Labels, threads: int, seconds: float) -> float:
    """Pictures a second that this process decodes and encodes.

    Args:
        files: encoded pictures, taken in turn.
        labels: the label map that is encoded for each of them; its largest label is its number of classes.
        threads: so many at the same time.
        seconds: for so long.
    """
    names = class_names(int(labels.max()))
    counts = [0] * threads
    began = time.perf_counter()

    def work(index: int) -> None:
        while time.perf_counter() < began + seconds:
            decode(files[counts[index] % len(files)], max_pixels=MAX_PIXELS)
            label_png(labels, names, class_colors([None] * len(names)))
            counts[index] += 1

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
    files = [jpeg(picture) for picture in pictures(args.width, args.height)]
    labels = label_map((args.height, args.width), args.classes)[0]
    measure(files, labels, args.threads, WARM_UP)
    for line in sys.stdin:
        print(json.dumps(measure(files, labels, args.threads, float(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
