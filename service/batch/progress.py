"""How far a run is, how fast, how long it will take: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.errors import UsageError

LINE_S = 30.0
Count = Callable[[Callable[[], bool]], int | None]
"""All that there is to do, or None once what it was given says that it is over."""

Shown = tuple[Callable[[int], None], Callable[[int], None], Callable[[str], None]]


class _Show(Protocol):
    def __call__(self, now: bool = False) -> None: ...


class RunProgress:
    """What is done of a run.

    Nobody knows at first how many images there are: they are counted beside the run.

    Args:
        clock: monotonic seconds.

    Attributes:
        total: images of the run; None until they are counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.total: int | None = None
        self._clock = clock
        self._done = self._before = 0
        self._why = ""
        self._first: tuple[float, int] | None = None  # when images were done first, and how many

    def done(self, count: int) -> None:
        """So many images were done just now; below 0 if they were lost and will be done again."""
        self._done += count
        if count > 0:
            self._why = ""
        if self._first is None and count > 0:
            self._first = self._clock(), count

    def known(self, count: int) -> None:
        """So many were done in an earlier run."""
        self._before += count

    def waits(self, why: str) -> bool:
        """Nothing is done for now; whether that is news."""
        former, self._why = self._why, why
        return former != why

    def line(self) -> str:
        """All of it; loading the model is no part of the rate."""
        return f"{self._counted()}; {self._why}" if self._why else self._counted()

    def _counted(self) -> str:
        there = self._done + self._before
        text = f"{there:,} images" if self.total is None else f"{there:,} of {self.total:,} images"
        first_at, first = self._first or (0.0, self._done)
        if self._done <= first:
            return text
        rate = (self._done - first) / max(self._clock() - first_at, 1e-9)
        text += f", {rate:.1f} images a second"
        if self.total is None:
            return text
        return f"{text}, {timedelta(seconds=round(max(0, self.total - there) / rate))} left"


@contextmanager
def progress_shown(count: Count) -> Iterator[Shown]:
    """Gives what is called with images done just now, with those done before, and with why the run waits.

    Args:
        count: counts the run's images, in a thread.
    """
    progress, over = RunProgress(), threading.Event()

    def counted() -> None:
        try:
            progress.total = count(over.is_set)
        except (OSError, UsageError):
            return  # the run meets it as well, and tells

    # a file system that hangs keeps nobody from ending
    threading.Thread(target=counted, name="ebseg-count", daemon=True).start()
    try:
        with _shown(progress) as show:

            def done(count: int) -> None:
                progress.done(count)
                show()

            def known(count: int) -> None:
                progress.known(count)
                show()

            def waits(why: str) -> None:
                show(now=progress.waits(why))

            yield done, known, waits
    finally:
        over.set()


@contextmanager
def _shown(progress: RunProgress) -> Iterator[_Show]:
    """Gives what is called after each change; `now` is for one that nobody should wait for."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("listing")
            yield lambda now=False: bar.update(task, description=progress.line())
        return
    printed = time.monotonic()

    def show(now: bool = False) -> None:
        nonlocal printed
        if now or time.monotonic() - printed >= LINE_S:
            printed = time.monotonic()
            print(progress.line(), file=sys.stderr, flush=True)

    yield show
