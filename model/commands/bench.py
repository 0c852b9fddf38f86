"""`ebseg bench`: the commands around model/bench. Each prints one JSON object, its last line.

For people the same figures come before it, a line each; `--json` leaves them out.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.command import JSON_HELP, add_command, add_device, count, shape
from model.commands.output import notify
from model.commands.places import VARIANTS

RUNTIMES = ("onnxruntime", "openvino")
DTYPES = ("float32", "bfloat16", "float16")
WORK = "the work"  # a section of the help
NEXT = {  # what to do with the figures of each benchmark
    "engine": "ebseg bench service measures what of it clients get",
    "classes": "ebseg bench text measures names that are new",
    "text": "ebseg bench classes measures names that are known",
    "memory": "ebseg serve --max-pixels N refuses larger images than the memory holds",
}


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
  ebseg bench engine --device cuda --batch 1,8 --compile --dtype bfloat16
  ebseg bench engine --runtime onnxruntime
  ebseg bench classes
  ebseg bench text --classes 150
  ebseg bench memory --classes 847 --width 4000 --height 3000
""",
    )
    commands = bench.add_subparsers(title="benchmarks", dest="benchmark", metavar="BENCHMARK", required=True)
    parser = add_command(
        commands,
        "engine",
        _run,
        "image to label map, as a fraction of the machine's matrix-product rate",
        "\n  ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16\n",
    )
    network = _add_model(parser)
    _add_dtype(network)
    network.add_argument(
        "--compile", dest="compiled", action="store_true", help="by a network that torch.compile makes"
    )
    network.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="run the exported network by it, too, in turn with ours; float32 on a CPU (default: none)",
    )
    work = parser.add_argument_group(WORK)
    _add_size(work)
    work.add_argument(
        "--shape", type=shape, metavar="ROWSxCOLUMNS", help="of the image, pixels (default: the square)"
    )
    _add_classes(work, 150)
    work.add_argument(
        "--batch",
        type=_batches,
        default=[],
        metavar="N,N",
        help="measure predict for batches of so many images, too (default: 1 on a GPU, else none)",
    )
    _add_runs(work)
    add_json(parser)

    parser = add_command(
        commands,
        "classes",
        _run,
        "an image with 1, 20, 150 and 847 names, and with other names again",
        "\n  ebseg bench classes --variant base\n",
    )
    _add_model(parser)
    work = parser.add_argument_group(WORK)
    _add_size(work)
    _add_runs(work)
    add_json(parser)

    parser = add_command(
        commands,
        "text",
        _run,
        "embedding of unseen class names, in units of one predict",
        "\n  ebseg bench text --classes 150\n",
    )
    _add_model(parser)
    work = parser.add_argument_group(WORK)
    _add_size(work)
    _add_classes(work, 150)
    _add_runs(work)
    add_json(parser)

    parser = add_command(
        commands,
        "memory",
        _run,
        "peak memory over the weights for one large image with many classes",
        "\n  ebseg bench memory --classes 847 --width 4000 --height 3000\n",
    )
    _add_dtype(_add_model(parser))
    work = parser.add_argument_group(WORK)
    work.add_argument("--width", type=count, default=4000, metavar="N", help="pixels (default: 4000)")
    work.add_argument("--height", type=count, default=3000, metavar="N", help="pixels (default: 3000)")
    _add_classes(work, 847)
    add_json(parser)
    return commands


def _run(args: argparse.Namespace) -> int:
    from model.bench import engine
    from model.bench import names as names_bench

    functions: dict[str, Callable[..., dict[str, Any]]] = {
        "engine": engine.bench_engine,
        "text": engine.bench_text,
        "memory": engine.bench_memory,
        "classes": names_bench.bench_classes,
    }
    function = functions[args.benchmark]
    names = inspect.signature(function).parameters.keys() - {"progress"}
    options = {name: getattr(args, name) for name in names}
    report(args, function(**options, progress=print_step), NEXT[args.benchmark])
    return 0


def report(args: argparse.Namespace, found: dict[str, Any], then: str) -> None:
    """Prints what a benchmark found, and for people what to do with it."""
    if not args.json:
        for name, value in found.items():
            print(f"{name:<26} {value}")
    print(json.dumps(found), flush=True)
    if not args.json:
        notify(f"next: {then}")  # JSON is the last line of standard output


def print_step(step: str) -> None:
    """Progress of a benchmark, a line a step on standard error."""
    print(step, file=sys.stderr, flush=True)


def _batches(words: str) -> list[int]:
    return [count(word) for word in words.split(",")]


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def _add_model(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Adds which model is measured, and where; the section, for what only some commands have."""
    network = parser.add_argument_group("the model")
    network.add_argument(
        "--variant",
        choices=VARIANTS,
        default="base",
        metavar="VARIANT",
        help=f"untrained weights of it: {', '.join(VARIANTS)} (default: base)",
    )
    network.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="a checkpoint folder's weights instead (default: none)"
    )
    add_device(network)
    return network


def _add_dtype(section: "argparse._ArgumentGroup") -> None:
    section.add_argument("--dtype", choices=DTYPES, default="float32", help="compute type (default: float32)")


def _add_classes(section: "argparse._ArgumentGroup", default: int) -> None:
    section.add_argument(
        "--classes", type=count, default=default, metavar="K", help=f"classes (default: {default})"
    )


def _add_size(section: "argparse._ArgumentGroup") -> None:
    section.add_argument(
        "--size",
        type=count,
        default=640,
        metavar="N",
        help="side of the square image, pixels (default: 640)",
    )


def _add_runs(section: "argparse._ArgumentGroup") -> None:
    section.add_argument(
        "--runs", type=count, default=5, metavar="N", help="timed runs after the warm-up (default: 5)"
    )
