"""One style for all commands of `ebseg`: a summary, options with their defaults, examples."""

import argparse
from collections.abc import Callable

JSON_HELP = "print one JSON object and nothing else on standard output"
MOST_SEED = (1 << 63) - 1  # what torch takes


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int] | None,
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Adds a command whose parsed namespace carries its function as `run`.

    Args:
        subparsers: of the parser above.
        name: of the command.
        run: what it does, returning the exit code; None for a command that only has commands of its own.
        summary: one line, for the list of commands and the top of the help.
        examples: whole command lines, indented by two spaces.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"Examples:{examples.rstrip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_device(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Adds `--device`, which `model.network.device.device_named` reads."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="where it runs: auto, cpu, cuda or cuda:N; auto takes a GPU if there is one (default: auto)",
    )


def count(text: str) -> int:
    """A whole number from 1, as an argument's type."""
    return _whole(text, 1)


def count_from_zero(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def shape(text: str) -> tuple[int, int]:
    """Rows and columns, as in 640x960."""
    rows, times, columns = text.partition("x")
    if not times:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 640x960")
    return count(rows), count(columns)


def seed(text: str) -> int:
    """A seed: a whole number from 0 to `MOST_SEED`."""
    number = _whole(text, 0)
    if number > MOST_SEED:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_SEED}, got {text!r}")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    number = _number(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


SECONDS_OF = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}  # by a time's unit


def seconds(text: str) -> float:
    """A time above 0: 30, 30s, 500 ms, 2 min."""
    number, unit = text.strip(), "s"
    if (found := number.lstrip("0123456789.").strip()) in SECONDS_OF:
        number, unit = number.removesuffix(found), found
    time = _number(number) * SECONDS_OF[unit]
    if not 0 < time < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a time above 0 such as 30 s or 500 ms, got {text!r}")
    return time


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return number


def _whole(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # within no bounds
