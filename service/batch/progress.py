"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

LINE_S = 30.0


@contextmanager
def progress_shown() -> Iterator[Callable[[int], None]]:
    """Gives what is called with pictures that were done; how many there will be is known to nobody."""
    console = Console(stderr=True)
    began = printed = time.monotonic()
    count = 0

    def line() -> str:
        return f"{count:,} images, {count / max(time.monotonic() - began, 1e-9):.1f} images a second"

    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("listing")

            def advance(done: int) -> None:
                nonlocal count
                count += done
                bar.update(task, description=line())

            yield advance
        return

    def advance_line(done: int) -> None:
        nonlocal count, printed
        count += done
        if time.monotonic() - printed >= LINE_S:
            printed = time.monotonic()
            print(line(), file=sys.stderr, flush=True)

    yield advance_line
