"""The `ebseg` command: the packages' own commands under one name.

Exit codes: 0 done; 1 failed, or done for some pictures only, or refused by a gate; 2 wrong usage or unusable
input; 130 interrupted; 141 nobody reads the output any more. What goes wrong is told in one line on standard
error.
"""

import argparse
import os
import sys
import traceback
from importlib import metadata
from typing import Any, NoReturn

import model.commands
import model.commands.bench
import service.bench.cli
import service.cli
import service.commands.completion
import training.commands.bench
from model.errors import FetchError, ModelError
from training.errors import RefusedError

DONE, FAILED, UNUSABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

# What `import` calls the packages of the extra "service".
SERVICE_PACKAGES = frozenset(
    {
        "cv2",
        "fastapi",
        "fastapi_offline",
        "httptools",
        "httpx",
        "prometheus_client",
        "pycocotools",
        "pydantic",
        "pydantic_settings",
        "python_multipart",
        "redis",
        "uvicorn",
        "uvloop",
    }
)

# And those of the extra "training".
TRAINING_PACKAGES = frozenset({"cv2", "fsspec", "scipy", "tensorboard"})


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses what is left over here already, where the help to look at is known."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(UNUSABLE)


class _Version(argparse.Action):
    """Looks the version up only when asked for it, so a checkout that is not installed runs as well."""

    def __call__(self, *_: Any) -> NoReturn:
        print(f"ebseg {metadata.version('ebseg')}")
        raise SystemExit(DONE)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; loads neither torch nor the service's packages."""
    parser: argparse.ArgumentParser = _Parser(
        prog="ebseg",
        description="Open-vocabulary semantic segmentation: a picture and class names in, a mask out.",
        epilog="Run `ebseg COMMAND --help` for the options of a command, with examples. Exit codes: 0 done, "
        "1 failed, 2 wrong usage or unusable input, 130 interrupted, 141 nobody reads the output.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error as well")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    service.cli.add_commands(commands)
    model.commands.add_commands(commands)
    training.commands.add_commands(commands)
    benchmarks = model.commands.bench.add_commands(commands)
    training.commands.bench.add_benchmark(benchmarks)
    service.bench.cli.add_benchmark(benchmarks)
    service.commands.completion.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command, and returns its exit code."""
    try:
        code = _run(argv)
        if sys.stdout is not None:  # there is none where the shell has closed it, with >&-
            sys.stdout.flush()  # here, where a broken pipe can still be handled
    except BrokenPipeError:
        # the interpreter flushes once more at its end, and must find somewhere to write to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _run(argv: list[str] | None) -> int:
    debug = False
    try:
        parser = build_parser()
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what could come next, see `ebseg completion`
            import argcomplete

            argcomplete.autocomplete(parser)
        args = parser.parse_args(argv)
        debug = args.debug
        code: int = args.run(args)
        return code
    except SystemExit as stop:  # from argparse, which has said all there is to say
        return stop.code if isinstance(stop.code, int) else DONE
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        code, message = _outcome(error)
        _complain(message)
        return code


def _outcome(error: BaseException) -> tuple[int, str]:
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted"
        case RefusedError() | FetchError():
            return FAILED, str(error)
        case ModelError():
            return UNUSABLE, str(error)
        case ModuleNotFoundError() if error.name in SERVICE_PACKAGES | TRAINING_PACKAGES:
            extra = "service" if error.name in SERVICE_PACKAGES else "training"
            return FAILED, f"this needs the package {error.name}: pip install 'ebseg[{extra}]'"
        case OSError(filename=str(name), strerror=str(reason)):
            return FAILED, f"{name}: {reason}"
        case OSError():
            return FAILED, str(error)
    return FAILED, f"{type(error).__name__}: {error} (this is a fault of ebseg; --debug tells where)"


def _complain(message: str) -> None:
    print(f"ebseg: error: {' '.join(message.split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
