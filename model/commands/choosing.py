"""A model by name for commands that need one: pulled first, after one question, where it is missing."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.commands.output import notify, progress_bars

if TYPE_CHECKING:
    from model.fetch.fetching import SourceFile
    from model.fetch.pull import Order

# model.released.known has the names, and resolve.py what else may be given
MODEL_HELP = "tiny, base, large, hf://OWNER/REPOSITORY/FILE, https://... or a checkpoint folder"


def add_yes(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds the flag that answers the question."""
    parser.add_argument(
        "--yes", action="store_true", help="fetch a model that is missing without asking (default: ask)"
    )


def expected_folder(text: str) -> Path:
    """Where a model is, or will be once it was pulled.

    Raises:
        FetchError, CheckpointError: there can be no such model.
    """
    from model.fetch.resolve import local_folder_of

    found = local_folder_of(text)
    return found if isinstance(found, Path) else found.directory


def pulled_folder(text: str, *, yes: bool) -> Path:
    """The folder of a model, which is pulled where it is missing; on a terminal the user is asked before.

    Raises:
        FetchError: it could not be fetched, or the user does not want it.
        CheckpointError: there is no such model, or it is damaged.
    """
    from model.errors import UnreachableError
    from model.fetch.resolve import folder_of, other_ways

    def allow(order: "Order", found: "SourceFile") -> bool:
        announced = announcement(order, found)
        if yes or not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
            notify(announced)
            return True
        return _agreed(f"{order.directory} is not there: {announced}. Go on? [Y/n] ")

    try:
        with progress_bars(lines=True) as progress:
            return folder_of(text, notify=notify, progress=progress, allow=allow)
    except UnreachableError as error:
        raise UnreachableError(f"{error}. {other_ways(text)}") from None
    except KeyboardInterrupt:
        notify("what was fetched is kept: the same command goes on there")
        raise


def announcement(order: "Order", found: "SourceFile") -> str:
    """What is about to be done."""
    from model.fetch.pull import size_text

    if found.whole is not None:
        return f"making {order.directory} of {found.where}, which was fetched before"
    size = "of unknown size" if found.size is None else size_text(found.size)
    rest = f", of which {size_text(found.here)} are here" if found.here else ""
    return f"fetching {found.where} ({size}{rest})"


def _agreed(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    return answer.strip().lower() in ("", "y", "yes") and answer != ""
