"""`ebseg publish`: a run's checkpoint becomes the next version in a registry."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.command import JSON_HELP, add_command
from training.publishing.quality_gate import GATED_METRICS, MARGIN

if TYPE_CHECKING:
    from model.storage.files import Progress
    from training.progress import Bar
    from training.publishing.publish import Published

MEBIBYTE = 1 << 20


MakeAnnouncer = Callable[[str | None], Callable[[str], bool] | None]
"""See `service.commands.news.announcer`: training knows no service."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", announcer: MakeAnnouncer) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "publish",
        run,
        "publish a run's checkpoint as the next version in a registry, if it is good enough",
        """
  ebseg publish runs/storybook registry/ebseg-tiny
  ebseg publish runs/storybook registry/ebseg-tiny --dtype float16 --dry-run
  ebseg publish runs/street registry/ebseg-street --license CC-BY-4.0 --card card.json
  ebseg publish runs/coco-stuff s3://bucket/registry/ebseg-base --margin 0.2 --metrics miou_all,miou_new
  ebseg publish runs/coco-stuff hf://OWNER/REPOSITORY/ebseg-base
  ebseg publish runs/coco-stuff registry/ebseg-base --force --reason "new labels, scores start again"
""",
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="RUN",
        help="run folder of ebseg train, or a checkpoint folder with its scores",
    )
    parser.add_argument(
        "destination",
        metavar="REGISTRY/NAME",
        help="the model's place in a folder, on the Hugging Face hub (hf://OWNER/REPOSITORY/NAME, with the "
        "token of `hf auth login` or HF_TOKEN) or at any fsspec URL (s3:// needs the package s3fs)",
    )
    gate = parser.add_argument_group("how good it must be")
    gate.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        metavar="POINTS",
        help=f"how much worse than the last version each metric may be (default: {MARGIN:g})",
    )
    gate.add_argument(
        "--metrics",
        default=",".join(GATED_METRICS),
        metavar="LIST",
        help=f"metrics that count (default: {','.join(GATED_METRICS)})",
    )
    gate.add_argument(
        "--force",
        action="store_true",
        help="publish whatever the metrics say; the manifest tells what they said",
    )
    gate.add_argument("--reason", metavar="TEXT", help="why --force is used, for the manifest")
    what = parser.add_argument_group("what is published")
    what.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="how weights are stored; float16 halves the size, loading gives float32 (default: float32)",
    )
    what.add_argument(
        "--license",
        metavar="TEXT",
        help='of the weights, as SPDX writes it, such as "MIT" (default: what the run started from has)',
    )
    what.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="JSON object of fields of the card, such as domain and training_data, that are to be others",
    )
    what.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="data set whose validation split the threshold is calibrated on (default: the run's)",
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help="Redis of the services that follow the registry, which are told to look at once (default: the "
        "variable EBSEG_REDIS_URL, which other users cannot see)",
    )
    parser.set_defaults(announcer=announcer)
    parser.add_argument(
        "--dry-run", action="store_true", help="compare, write and check all of it, but publish nothing"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg publish`."""
    from training.run.folder import checkpoint_in

    checkpoint_in(args.source)  # before torch is imported, which takes seconds

    announce = args.announcer(args.redis_url)

    from training.publishing.publish import QualityGate, publish

    gate = QualityGate(
        metrics=tuple(args.metrics.split(",")), margin=args.margin, force=args.force, reason=args.reason
    )
    with _bars() as progress:
        published = publish(
            args.source,
            args.destination,
            gate=gate,
            dtype=args.dtype,
            license=args.license,
            card=args.card,
            data=args.data,
            dry_run=args.dry_run,
            progress=progress,
        )
    told = announce(published.manifest.name) if announce is not None and not args.dry_run else None
    if args.json:
        print(json.dumps(_values(published, args.dry_run) | {"announced": told}, indent=2))
    else:
        _print(published, args.dry_run)
        registry, _, name = args.destination.rstrip("/").rpartition("/")
        serve = f"ebseg serve --registry {registry or '.'} --model {name}"
        print(f"next: {'the same without --dry-run' if args.dry_run else serve}")
    return 0


def _values(published: "Published", dry_run: bool) -> dict[str, Any]:
    manifest = published.manifest
    return {
        "location": published.location,
        "published": not dry_run,
        "name": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "parent": manifest.parent,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "metrics": {
            score.metric: {"new": score.new, "old": score.old, "limit": score.limit}
            for score in published.scores
        },
        "not_compared": list(published.left_out),
        "license": manifest.license,
        "threshold": None if manifest.card is None else manifest.card.threshold,
        "threshold_note": None if manifest.card is None else manifest.card.threshold_note,
        "forced": manifest.training.get("forced"),
    }


def _print(published: "Published", dry_run: bool) -> None:
    values = _values(published, dry_run)
    print(f"{'would publish' if dry_run else 'published'} {published.location}")
    print(f"digest {values['digest']}")
    print(f"parent {values['parent'] or 'none'}")
    print(f"size {values['bytes']:,} bytes")
    print(f"licence {values['license'] or 'not said'}")
    if values["threshold_note"] is not None:
        threshold = "none" if values["threshold"] is None else f"{values['threshold']:.3f}"
        print(f"threshold {threshold}, {values['threshold_note']}")
    for score in published.scores:
        limit = f" (limit {score.limit:.2f})" if score.limit is not None else ""
        print(f"{score.metric} {_percent(score.old)} -> {_percent(score.new)}{limit}")
    for reason in published.left_out:
        print(f"not compared: {reason}")
    for objection in (values["forced"] or {}).get("overridden", ()):
        print(f"forced: {objection}")


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


@contextmanager
def _bars() -> Iterator["Progress"]:
    """A bar for each long step in turn; steps under a MiB are over before one could be read."""
    from training.evaluation.calibrate import STEP
    from training.progress import progress

    with ExitStack() as shown:
        bars: dict[str, Bar] = {}

        def notify(step: str, done: int, total: int) -> None:
            unit, title = (1, step) if step == STEP else (MEBIBYTE, f"{step}, MiB")
            if total < unit:
                return
            if step not in bars or bars[step].done > done // unit:
                shown.close()  # a terminal shows one bar at a time
                of = "images" if step == STEP else "MiB"
                bars[step] = shown.enter_context(progress(title, total // unit, unit=of))
            bars[step].advance(done // unit - bars[step].done)

        yield notify
