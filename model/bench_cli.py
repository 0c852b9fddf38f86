"""`ebseg bench`: the commands around model/bench.py. Each prints one JSON object, its last line."""

import argparse
import inspect
import json
import sys
from pathlib import Path

from model.cli import VARIANTS
from model.command import add_command

DTYPES = ("float32", "bfloat16", "float16")


def add_commands(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    """Adds `bench` and its own commands; returns where other packages may add theirs."""
    bench = add_command(
        subparsers,
        "bench",
        None,
        "measure the model against what this machine can do",
        """
  ebseg bench engine --variant base --size 640 --classes 150 --dtype float32
  ebseg bench text --classes 150
  ebseg bench memory --classes 847 --width 4000 --height 3000
""",
    )
    commands = bench.add_subparsers(title="benchmarks", dest="benchmark", metavar="BENCHMARK", required=True)
    parser = add_command(
        commands,
        "engine",
        _run,
        "picture to label map, as a fraction of the machine's matrix-product rate",
        "\n  ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16\n",
    )
    _add_model(parser)
    _add_size(parser)
    parser.add_argument("--classes", type=positive, default=150, metavar="K", help="classes (default: 150)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="compute type (default: float32)")
    _add_runs(parser)

    parser = add_command(
        commands,
        "text",
        _run,
        "embedding of unseen class names, in units of one predict",
        "\n  ebseg bench text --classes 150\n",
    )
    _add_model(parser)
    _add_size(parser)
    parser.add_argument("--classes", type=positive, default=150, metavar="K", help="classes (default: 150)")
    _add_runs(parser)

    parser = add_command(
        commands,
        "memory",
        _run,
        "peak memory over the weights for one large picture with many classes",
        "\n  ebseg bench memory --classes 847 --width 4000 --height 3000\n",
    )
    _add_model(parser)
    parser.add_argument("--width", type=positive, default=4000, help="pixels (default: 4000)")
    parser.add_argument("--height", type=positive, default=3000, help="pixels (default: 3000)")
    parser.add_argument("--classes", type=positive, default=847, metavar="K", help="classes (default: 847)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="compute type (default: float32)")
    return commands


def _run(args: argparse.Namespace) -> int:
    from model import bench

    function = getattr(bench, f"bench_{args.benchmark}")
    names = inspect.signature(function).parameters.keys() - {"progress"}
    options = {name: getattr(args, name) for name in names}
    print(json.dumps(function(**options, progress=told)))
    return 0


def told(step: str) -> None:
    """Progress of a benchmark, a line a step on standard error."""
    print(step, file=sys.stderr, flush=True)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant", choices=VARIANTS, default="base", help="untrained weights of it (default: base)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a checkpoint folder's weights instead"
    )


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=positive, default=640, help="side of the square picture, pixels (default: 640)"
    )


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=positive, default=5, metavar="N", help="timed runs after the warm-up (default: 5)"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be a whole number of at least 1")
    return number
