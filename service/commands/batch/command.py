"""`ebseg batch`."""

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command, count
from model.commands.choosing import MODEL_HELP, add_yes
from model.urls import shown
from service.commands.complaint import FAILED, UNUSABLE, complain
from service.commands.flags import CLASSES_HELP, FILE_HELP, KEY_HELP, add_setting
from service.commands.remote import complain_of

if TYPE_CHECKING:
    from service.batch.plan import BatchPlan

BEYOND_SHOWN = 5  # numbers of shards
EXAMPLES = """
  ebseg batch photos --classes "sky, tree, road" --out masks
  ebseg batch photos.csv --vocabulary ade20k-150 --model base --out s3://bucket/masks --workers 2
  ebseg batch "shards/*.tar" --request request.json --out out --format tar --device cuda
  ebseg batch photos --classes "sky, tree" --out masks --dry-run
  ebseg batch photos --classes "sky, tree" --out masks --retry-errors
  ebseg batch photos.txt --classes "sky, tree" --out masks --shard 3/64
  ebseg batch photos --classes "sky, tree" --out masks --url http://127.0.0.1:8000 --threads 8
  ebseg batch s3://bucket/photos --classes "sky, tree" --out s3://bucket/masks --on ray --address auto

INPUT is a folder (with the folders within), a pattern, a list (.txt: a path a line; .csv or .parquet: columns
path and id), or a tar as WebDataset has it; each on this machine or at an fsspec URL.

The same command again does what is missing. Exit code 1: some images have errors, which their rows tell.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "batch", run, "segment any number of images, offline", EXAMPLES)
    parser.add_argument("source", metavar="INPUT", help="folder, pattern, list or tar of images")
    parser.add_argument("--out", required=True, metavar="PLACE", help="folder or URL that rows go to")
    what = parser.add_argument_group("what to look for")
    what.add_argument("--classes", action="append", default=[], metavar="NAMES", help=CLASSES_HELP)
    what.add_argument("--classes-file", type=Path, metavar="FILE", help=FILE_HELP)
    what.add_argument("--vocabulary", metavar="NAME", help="a built-in class list instead, as ade20k-150")
    what.add_argument(
        "--request", type=Path, metavar="FILE", help="JSON document of POST /v1/segment instead of both"
    )
    what.add_argument("--model", metavar="MODEL", help=f"{MODEL_HELP} (default: tiny)")
    add_setting(what, "checkpoint")
    add_yes(what)
    how = parser.add_argument_group("how")
    for name in ("device", "dtype", "max_pixels", "max_classes"):
        add_setting(how, name)
    how.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="processes (default: one a device; with Ray as many as it finds room for)",
    )
    how.add_argument(
        "--batch-size", type=count, metavar="N", help="images a batch (default: 1 on a CPU, 8 on CUDA)"
    )
    how.add_argument(
        "--threads",
        type=count,
        default=2,
        metavar="N",
        help="that read, and encode, of a worker (default: 2)",
    )
    how.add_argument("--url", metavar="URL", help="a running service does the work")
    how.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    how.add_argument("--on", choices=("ray",), help="workers of a Ray cluster (default: processes here)")
    how.add_argument(
        "--address",
        metavar="ADDRESS",
        help="of the cluster, as auto, HOST:6379 or ray://HOST:10001 (default: a Ray on this machine alone)",
    )
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--format",
        choices=("parquet", "folder", "tar"),
        default="parquet",
        dest="form",
        help="of the output (default: parquet)",
    )
    rows.add_argument(
        "--shard-size", type=count, default=256, metavar="N", help="images a shard (default: 256)"
    )
    rows.add_argument(
        "--shard",
        metavar="K/N",
        help="do every N-th shard from the K-th on, K from 0 (default: all); with K left out, as in /64, "
        "the variable JOB_COMPLETION_INDEX is K",
    )
    rows.add_argument("--retry-errors", action="store_true", help="do rows with errors again")
    rows.add_argument(
        "--tolerate-errors", action="store_true", help="exit code 0 although some images have errors"
    )
    rows.add_argument(
        "--dry-run", action="store_true", help="count, look at a few images, tell the time it would take"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg batch`."""
    from ebseg_client import ClientError
    from service.batch.run import RunFailedError
    from service.commands.batch.plan import planned
    from service.errors import ServiceError, UsageError
    from service.settings import SettingsError

    try:
        plan, model, digest = planned(args)
        if args.dry_run:
            from service.batch.estimate import estimate

            return _print(args, estimate(plan))
        return _run(args, plan, model, digest)
    except (UsageError, ServiceError, SettingsError) as error:
        return complain(error, UNUSABLE)
    except ClientError as error:
        return complain_of(error, args.url)
    except (OSError, RunFailedError) as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        complain("stopped; what is finished is kept, and the same command goes on", FAILED)
        return 130


def _run(args: argparse.Namespace, plan: "BatchPlan", model: str, digest: str) -> int:
    from service.batch.finish import finish
    from service.batch.listing import items
    from service.batch.place import OutputPlace
    from service.batch.plan import pin
    from service.batch.progress import progress_shown
    from service.batch.run import BatchRun
    from service.batch.sinks import open_sink

    with closing(items(plan.source)) as listed:
        next(listed)  # an input that is not there leaves no output
    store = OutputPlace(plan.out)
    sink = open_sink(store, plan.form)
    pin(store, plan.pinned(model, digest))
    with progress_shown(plan.count) as progress:
        if args.on == "ray":
            from service.batch.ray_run import RayRun

            result = RayRun(plan, *progress[:2], address=args.address, workers=args.workers).run()
        else:
            result = BatchRun(plan, sink, *progress).run()
    finish(store, sink, result)
    rate = result.made / result.seconds if result.seconds else 0.0
    found = {
        "out": shown(plan.out),
        "rows": result.rows,
        "errors": result.errors,
        "done_before": result.skipped,
        "segmented": result.made,
        "seconds": round(result.seconds, 3),
        "pictures_per_second": round(rate, 3),
    }
    _print(args, found)
    if not args.json:
        print(f"next: look at {shown(plan.out)}/sheet.webp and {shown(plan.out)}/summary.png")
    if result.errors:
        print(f"ebseg: {result.errors} images have errors; --retry-errors does them again", file=sys.stderr)
    if result.beyond:
        numbers = ", ".join(map(str, result.beyond[:BEYOND_SHOWN]))
        more = ", ..." if len(result.beyond) > BEYOND_SHOWN else ""
        held = f"{shown(plan.out)} still holds {len(result.beyond)} shards past the end of the input"
        return complain(f"{held}, which was longer once: remove those numbered {numbers}{more}", FAILED)
    return FAILED if result.errors and not args.tolerate_errors else 0


def _print(args: argparse.Namespace, found: dict[str, Any]) -> int:
    if not args.json:
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<20} {value}")
    else:
        print(json.dumps(found))
    return 0
