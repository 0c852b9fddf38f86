"""What commands show while they work, and what they made."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.storage.files import Progress
    from model.storage.manifest import Manifest

LINE_SECONDS = 5.0  # between lines of progress where there is no terminal


def report(args: argparse.Namespace, manifest: "Manifest", line: str, then: str) -> None:
    """Prints what was made: a line, the digest and a command to go on with; or with `--json` the manifest."""
    if args.json:
        print(manifest.to_json())
    else:
        print(f"{line}\ndigest {manifest.digest}\nnext: {then}")


def mebibytes(count: int) -> str:
    """Bytes in units that people use."""
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{count / (1 << 10):.1f} KiB"


def notify(line: str) -> None:
    """A line on standard error, for people."""
    print(f"ebseg: {line}", file=sys.stderr, flush=True)


@contextmanager
def progress_bars(*, lines: bool = False) -> Iterator["Progress"]:
    """A bar on standard error while it is a terminal.

    Args:
        lines: where it is none, print a line every `LINE_SECONDS` instead of nothing.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    if lines and not console.is_terminal:
        yield _Lines().advance
        return
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
    if lines:
        columns += [TransferSpeedColumn(), TimeRemainingColumn()]
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def advance(step: str, done: int, total: int) -> None:
        bar.start()  # not before there is something to show: a question may come first
        if step not in tasks:
            # what was there before did not come with any speed
            tasks[step] = bar.add_task(step, total=total or None, completed=done)
        bar.update(tasks[step], completed=done)

    try:
        yield advance
    finally:
        bar.stop()


class _Lines:
    """Progress as lines of text."""

    def __init__(self) -> None:
        self._printed_at = time.monotonic()
        self._done_then: dict[str, int] = {}

    def advance(self, step: str, done: int, total: int) -> None:
        """Prints a line if the last one is a while ago."""
        now = time.monotonic()
        before = self._done_then.setdefault(step, done)  # what was there before did not come with any speed
        passed = now - self._printed_at
        if passed < LINE_SECONDS:
            return
        self._printed_at, self._done_then[step] = now, done
        of = f" of {total / 1e6:.0f} MB, {done / total:.0%}" if total else " MB"
        notify(f"{step}: {done / 1e6:.0f}{of}, {(done - before) / passed / 1e6:.1f} MB/s")
