"""The service's commands, run in this process."""

import argparse

from service import cli


def run(*words: object) -> int:
    """The exit code of `ebseg WORDS`; errors that `ebseg.main` handles are raised."""
    parser = argparse.ArgumentParser(prog="ebseg")
    cli.add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args([str(word) for word in words])
    code: int = args.run(args)
    return code
