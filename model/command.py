"""One style for all commands of `ebseg`: a summary, options with their defaults, examples."""

import argparse
from collections.abc import Callable


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
