"""What commands show while they work, and what they made."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.files import Progress
    from model.manifest import Manifest


def report(args: argparse.Namespace, manifest: "Manifest", line: str) -> None:
    """Prints what was made: a line and the digest, or with `--json` the manifest."""
    if args.json:
        print(manifest.to_json())
    else:
        print(f"{line}\ndigest {manifest.digest}")


@contextmanager
def progress_bars() -> Iterator["Progress"]:
    """A bar on standard error while it is a terminal, nothing otherwise."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done)

        yield advance
