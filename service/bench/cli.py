"""`ebseg bench service`: the service under load, as a table, or as one JSON object beside it.

Only light modules are imported here; the command imports the rest.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TextIO

from model.command import above_zero, add_command, count, seconds
from model.commands.bench import add_json, print_step
from service.commands.complaint import FAILED, UNUSABLE, complain

SECONDS, ROUNDS = 10.0, 5
EXAMPLES = """
  ebseg bench service
  ebseg bench service --seconds 30 --json
  ebseg bench service --checkpoint registry/ebseg-base/1 --size 1024x768 --classes 150
  ebseg bench service --rate 8
  ebseg bench service --url http://127.0.0.1:8000 --checkpoint registry/ebseg-base/1
  ebseg bench service --instant
"""


def add_benchmark(benches: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `service` to the benchmarks."""
    parser = add_command(
        benches, "service", run, "the service under load over HTTP, against the bare engine", EXAMPLES
    )
    parser.description = (
        "The service under load over HTTP, against the bare engine: latencies, images a second, and their\n"
        "ratio to what the engine does alone in this process, measured in turn. With --instant an engine\n"
        "that returns at once, against decoding and encoding alone, and against LitServe."
    )
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--connections", type=count, default=16, metavar="N", help="open at a time (default: 16)"
    )
    load.add_argument(
        "--seconds",
        type=seconds,
        default=SECONDS,
        metavar="S",
        help=f"of a round, for each that is measured (default: {SECONDS:g})",
    )
    load.add_argument(
        "--rounds",
        type=count,
        default=ROUNDS,
        metavar="N",
        help=f"medians are of them (default: {ROUNDS})",
    )
    load.add_argument(
        "--rate",
        type=above_zero,
        metavar="R",
        help="open loop: so many images a second arrive by themselves, at random, and wait for a "
        "connection where none is free; their latency counts from then on (default: all connections busy)",
    )
    load.add_argument(
        "--size", type=_size, default=(640, 480), metavar="WxH", help="of the images (default: 640x480)"
    )
    load.add_argument("--classes", type=count, default=20, metavar="K", help="classes (default: 20)")
    add_json(parser)
    measured = parser.add_argument_group("what is measured")
    what = measured.add_mutually_exclusive_group()
    what.add_argument(
        "--url", metavar="URL", help="a running service, http://HOST:PORT, instead of a new one"
    )
    what.add_argument(
        "--instant",
        action="store_true",
        help="an engine that returns at once, indexed PNGs as responses; needs litserve",
    )
    measured.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="folder of the checkpoint (default: the EBSeg-tiny that comes with ebseg)",
    )


def run(args: argparse.Namespace) -> int:
    """`ebseg bench service`."""
    from service.bench.process import ServerFailedError
    from service.bench.service import bench_instant, bench_service
    from service.bench.target import BenchError
    from service.settings import SettingsError

    if args.instant and args.checkpoint is not None:
        return complain("--instant has no checkpoint", UNUSABLE)
    options: dict[str, Any] = {
        name: getattr(args, name) for name in ("connections", "seconds", "rate", "rounds", "size", "classes")
    }
    try:
        if args.instant:
            found = bench_instant(**options, progress=print_step)
        else:
            found = bench_service(url=args.url, checkpoint=args.checkpoint, **options, progress=print_step)
    except SettingsError as error:
        return complain(error, UNUSABLE)
    except (BenchError, ServerFailedError) as error:
        return complain(error, FAILED)
    # a program reads standard output, people may still look on
    _print_table(found, sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(found))
    elif not args.instant:
        print("next: ebseg bench service --instant measures what decoding and encoding allow")
    else:
        print("next: ebseg bench service measures it with a model")
    return 0


def _print_table(found: dict[str, Any], file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table

    instant = found["bench"] == "service-instant"
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console.width = 120  # a file or pipe has no edge
    title = "an engine that returns at once" if instant else f"{found['model']} on {found['device']}"
    arrivals = "closed loop" if found["rate"] is None else f"open loop, {found['rate']:g} images/s"
    table = Table(
        title=f"{title}: {found['width']} x {found['height']}, {found['classes']} classes, "
        f"{found['connections']} connections, {arrivals}"
    )
    table.add_column("")
    for heading in ("images/s", "p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    rows = [("service", found["pictures_per_second"], found["latency_seconds"])]
    if instant:
        rows.append(("LitServe", found["litserve_pictures_per_second"], found["litserve_latency_seconds"]))
        limit = f"decoding and encoding alone, {found['cores']} {found['limit_pool']}"
        rows.append((limit, found["limit_pictures_per_second"], {}))
    else:
        bare = f"bare engine, batches of {found['bare_batch_size']}"
        rows.append((bare, found["bare_pictures_per_second"], {}))
    for name, rate, latency in rows:
        shown = [latency.get(percent) for percent in ("p50", "p95", "p99")]
        table.add_row(name, f"{rate:.1f}", *("" if s is None else f"{1000 * s:.1f} ms" for s in shown))
    console.print(table)
    for text, key in (
        ("service / bare engine", "ratio"),
        ("service / limit", "ratio_to_limit"),
        ("service / LitServe", "ratio_to_litserve"),
    ):
        if found.get(key) is not None:
            console.print(f"{text}: {found[key]:.3f}")
    if found["unsent"]:
        console.print(f"{found['unsent']} requests found no free connection: the rate is more than it can do")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return count(width), count(height)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError("must be WIDTHxHEIGHT, such as 640x480") from None
