"""`ebseg batch`."""

import argparse
import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command, count
from model.commands.choosing import MODEL_HELP, add_yes, pulled_folder
from service.commands.complaint import FAILED, UNUSABLE, complain
from service.commands.flags import CLASSES_HELP, KEY_HELP, add_setting, class_list, given_settings

if TYPE_CHECKING:
    from service.batch.plan import BatchPlan

EXAMPLES = """
  ebseg batch photos --classes "sky, tree, road" --out masks
  ebseg batch photos.csv --vocabulary ade20k-150 --model base --out s3://bucket/masks --workers 2
  ebseg batch "shards/*.tar" --request request.json --out out --format tar --device cuda
  ebseg batch photos --classes "sky, tree" --out masks --dry-run
  ebseg batch photos --classes "sky, tree" --out masks --retry-errors
  ebseg batch photos.txt --classes "sky, tree" --out masks --shard 3/64
  ebseg batch photos --classes "sky, tree" --out masks --url http://127.0.0.1:8000 --threads 8

INPUT is a folder (with the folders within), a pattern, a list (.txt: a path a line; .csv or .parquet: columns
path and id), or a tar as WebDataset has it; each on this machine or at an fsspec URL.

The same command again does what is missing. Exit code 1: some pictures have errors, told in their rows.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "batch", run, "segment any number of pictures, offline", EXAMPLES)
    parser.add_argument("source", metavar="INPUT", help="folder, pattern, list or tar of pictures")
    parser.add_argument("--out", required=True, metavar="PLACE", help="folder or URL that rows go to")
    what = parser.add_argument_group("what to look for")
    what.add_argument("--classes", action="append", default=[], metavar="NAMES", help=CLASSES_HELP)
    what.add_argument("--vocabulary", metavar="NAME", help="a built-in class list instead, as ade20k-150")
    what.add_argument(
        "--request", type=Path, metavar="FILE", help="JSON document of POST /v1/segment instead of both"
    )
    what.add_argument("--model", metavar="MODEL", help=f"{MODEL_HELP} (default: tiny)")
    add_setting(what, "checkpoint")
    add_yes(what)
    how = parser.add_argument_group("how")
    for name in ("device", "dtype", "max_pixels"):
        add_setting(how, name)
    how.add_argument("--workers", type=count, metavar="N", help="processes (default: one a device)")
    how.add_argument(
        "--batch-size", type=count, metavar="N", help="pictures a batch (default: 1 on a CPU, 8 on CUDA)"
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
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--format",
        choices=("parquet", "folder", "tar"),
        default="parquet",
        dest="form",
        help="of the output (default: parquet)",
    )
    rows.add_argument(
        "--shard-size", type=count, default=256, metavar="N", help="pictures a shard (default: 256)"
    )
    rows.add_argument(
        "--shard",
        metavar="K/N",
        help="do every N-th shard from the K-th on, K from 0 (default: all); with K left out, as in /64, "
        "the variable JOB_COMPLETION_INDEX is K",
    )
    rows.add_argument("--retry-errors", action="store_true", help="do rows with errors again")
    rows.add_argument(
        "--dry-run", action="store_true", help="count, look at a few pictures, tell the time it would take"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg batch`."""
    from service.errors import ServiceError, UsageError
    from service.settings import SettingsError

    try:
        plan, model, digest = _plan(args)
        if args.dry_run:
            from service.batch.estimate import estimate

            return _print(args, estimate(plan))
        return _run(args, plan, model, digest)
    except (UsageError, ServiceError, SettingsError) as error:
        return complain(error, UNUSABLE)
    except OSError as error:
        return complain(error, FAILED)
    except KeyboardInterrupt:
        complain("stopped; what is finished is kept, and the same command goes on", FAILED)
        return 130


def _plan(args: argparse.Namespace) -> "tuple[BatchPlan, str, str]":
    """The run, and name and digest of the model, looked at as far as that goes without loading it."""
    from model.storage.verify import verify
    from service.batch.plan import BatchPlan
    from service.errors import UsageError
    from service.segmentation.requested import checked_for_here, read_request
    from service.settings import load_settings

    document = _document(args)
    if args.url is not None:
        if args.model or given_settings(args).keys() - {"max_pixels"} or args.batch_size:
            raise UsageError("--url leaves the model and its device to the service")
        read_request(document)
        common: dict[str, Any] = {"checkpoint": None, "url": args.url, "api_key": args.api_key}
        model, digest, devices = args.url, "", _services(args.workers)
    else:
        given = given_settings(args)
        if args.model is not None:
            if "checkpoint" in given:
                raise UsageError("--model does not go with --checkpoint: give one of them")
            given["checkpoint"] = pulled_folder(args.model, yes=args.yes)
        settings = load_settings(given | {"device": "cpu"}, None)
        _, folder = checked_for_here(settings, read_request(document))
        manifest = verify(folder, digests=False)
        device = str(given.get("device", "auto"))
        devices = _devices(device, args.workers)
        common = {"checkpoint": str(folder), "dtype": settings.dtype, "max_pixels": settings.max_pixels}
        model, digest = f"{manifest.name}/{manifest.version}", manifest.digest
    plan = BatchPlan(
        source=args.source,
        out=args.out,
        request=document,
        form=args.form,
        shard_size=args.shard_size,
        share=_share(args.shard),
        devices=devices,
        batch_size=args.batch_size,
        threads=args.threads,
        retry_errors=args.retry_errors,
        **common,
    )
    return plan, model, digest


def _document(args: argparse.Namespace) -> dict[str, Any]:
    from service.errors import UsageError

    named = [bool(args.classes), args.vocabulary is not None, args.request is not None]
    if sum(named) != 1:
        raise UsageError("give one of --classes, --vocabulary and --request")
    if args.request is not None:
        try:
            document = json.loads(args.request.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{args.request} cannot be read as JSON: {error}") from None
        if not isinstance(document, dict):
            raise UsageError(f"{args.request} holds no JSON object")
        return document
    if args.vocabulary is not None:
        return {"vocabulary": args.vocabulary}
    return {"classes": class_list(args.classes)}


def _devices(setting: str, workers: int | None) -> tuple[str, ...]:
    """A device for each worker; several workers share a device if they are more."""
    if setting == "cpu":
        names = ["cpu"]
    else:
        from service.scheduling.torch_engine import device_names

        names = device_names(setting)
    return tuple(names[index % len(names)] for index in range(workers or len(names)))


def _services(workers: int | None) -> tuple[str, ...]:
    return ("service",) * (workers or 1)


def _share(text: str | None) -> tuple[int, int]:
    from service.batch.plan import share
    from service.errors import UsageError

    if text is None:
        return 0, 1
    if text.startswith("/"):
        index = os.environ.get("JOB_COMPLETION_INDEX")
        if index is None:
            raise UsageError(
                f"--shard {text} needs JOB_COMPLETION_INDEX, which a Kubernetes Indexed Job sets"
            )
        text = index + text
    return share(text)


def _run(args: argparse.Namespace, plan: "BatchPlan", model: str, digest: str) -> int:
    from service.batch.finish import finish
    from service.batch.listing import items
    from service.batch.plan import pin
    from service.batch.progress import shown
    from service.batch.run import BatchRun
    from service.batch.sinks import OutputPlace, open_sink

    with closing(items(plan.source)) as listed:
        next(listed)  # an input that is not there leaves no output
    store = OutputPlace(plan.out)
    sink = open_sink(store, plan.form)
    pin(store, plan.pinned(model, digest))
    with shown() as progress:
        result = BatchRun(plan, sink, progress).run()
    finish(store, sink, plan, result)
    rate = result.made / result.seconds if result.seconds else 0.0
    found = {
        "out": plan.out,
        "rows": result.rows,
        "errors": result.errors,
        "done_before": result.skipped,
        "segmented": result.made,
        "seconds": round(result.seconds, 3),
        "pictures_per_second": round(rate, 3),
    }
    _print(args, found)
    if result.errors:
        print(f"ebseg: {result.errors} pictures have errors; --retry-errors does them again", file=sys.stderr)
    return FAILED if result.errors else 0


def _print(args: argparse.Namespace, found: dict[str, Any]) -> int:
    if not args.json:
        for name, value in found.items():
            print(f"{name.replace('_', ' '):<20} {value}")
    else:
        print(json.dumps(found))
    return 0
