"""Progress of long work on standard error: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 30.0  # between lines where there is no terminal


class Bar:
    """One piece of work; `advance` is called as its parts are done.

    Args:
        what, total, done, unit: as of `progress`.
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "images"):
        self.what = what
        self.total = total
        self.done = done
        self.unit = unit
        self._start_count = done
        self._began = self._spoke = time.monotonic()

    def advance(self, count: int = 1, **values: float) -> None:
        """Says that `count` more parts are done, and shows `values` beside it."""
        self.done += count
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self.done - self._start_count) / seconds
        numbers = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._show(f"{numbers} {rate:.3g} {self.unit}/s".strip(), rate)

    def _show(self, text: str, rate: float) -> None:
        now = time.monotonic()
        if now - self._spoke >= LINE_SECONDS or self.done == self.total:
            self._spoke = now
            left = (self.total - self.done) / rate if rate else 0.0
            minutes, seconds = divmod(round(left), 60)
            line = f"{self.what}: {self.done} of {self.total}, {text}, {minutes}:{seconds:02d} left"
            print(line, file=sys.stderr, flush=True)


class _TerminalBar(Bar):
    def __init__(self, what: str, total: int, done: int, unit: str, progress: Progress):
        super().__init__(what, total, done, unit)
        self._progress = progress
        self._task: TaskID = progress.add_task(what, total=total, completed=done, values="")

    def _show(self, text: str, rate: float) -> None:
        self._progress.update(self._task, completed=self.done, values=text)


@contextmanager
def progress(
    what: str, total: int, done: int = 0, *, shown: bool = True, unit: str = "images"
) -> Iterator[Bar]:
    """A bar for the time of a `with` block.

    Args:
        what: a word or two, "training".
        total: parts in all.
        done: parts that an earlier run has done.
        shown: False keeps it silent, for all processes but the first.
        unit: what the parts are, for their rate.
    """
    console = Console(stderr=True)
    if not shown:
        yield _SilentBar(what, total, done, unit)
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bars:
            yield _TerminalBar(what, total, done, unit, bars)
    else:
        yield Bar(what, total, done, unit)


class _SilentBar(Bar):
    def _show(self, text: str, rate: float) -> None:
        pass
