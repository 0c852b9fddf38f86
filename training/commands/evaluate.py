"""`ebseg evaluate`: mIoU of a checkpoint over all, trained and new classes."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model.command import JSON_HELP, add_command, count, count_from_zero

if TYPE_CHECKING:
    from model.network.balance import Balance
    from model.storage.checkpoint import LoadedCheckpoint
    from training.data.layout import SegmentationFolder
    from training.evaluation.confusion_counts import Options

PICTURES = 20  # shown, of --pictures


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        "score a checkpoint on a data set: mIoU over all, trained and new classes",
        """
  ebseg evaluate registry/ebseg-tiny/1 data/storybook
  ebseg evaluate runs/base data/ade20k-150 --save
  ebseg evaluate registry/ebseg-base/1 data/ade20k-150 --processes 4 --json
  ebseg evaluate registry/ebseg-tiny/1 data/storybook --pictures /tmp/panels --limit 50
  ebseg evaluate registry/ebseg-tiny/1 data/storybook --confusion out/confusion --worst out/worst
""",
    )
    add_set_options(parser)
    how = parser.add_argument_group("how")
    how.add_argument(
        "--balance",
        choices=("configured", "geometric", "arithmetic", "off"),
        default="configured",
        help="how embeddings are balanced: the checkpoint's way, its weights in one of the two means, or "
        "off: mask attention embeddings alone (default: configured)",
    )
    out = parser.add_argument_group("what is written")
    out.add_argument(
        "--pictures", type=Path, metavar="DIR", help="folder for images, truths and predictions to look at"
    )
    out.add_argument(
        "--picture-count", type=count, metavar="N", help=f"how many of those (default: {PICTURES})"
    )
    out.add_argument(
        "--confusion",
        type=Path,
        metavar="DIR",
        help="folder for what was taken for what: confusion.csv (pixels) and confusion.png (shares)",
    )
    out.add_argument(
        "--worst",
        type=Path,
        metavar="DIR",
        help="folder for the ten images with the lowest mIoU, with maps of their errors",
    )
    how.add_argument(
        "--batch",
        type=count,
        default=1,
        metavar="N",
        help="images of one size that go through the model together (default: 1)",
    )
    how.add_argument(
        "--protocol",
        choices=("official",),
        help="for a data set of ebseg prepare: say what is otherwise than in the released evaluation",
    )
    out.add_argument(
        "--save",
        action="store_true",
        help="write the scores into the run that the checkpoint lies in, for ebseg publish",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def add_set_options(parser: argparse.ArgumentParser) -> None:
    """What to score, on what and how: for every command that scores a checkpoint on a data set."""
    add_data_options(parser)
    add_process_options(parser)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """A checkpoint, and the pictures that it goes through."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint folder, or a run's")
    parser.add_argument("data", type=Path, metavar="DATA", help="data set in the layout of `ebseg prepare`")
    what = parser.add_argument_group("what is scored")
    what.add_argument("--split", default="val", metavar="NAME", help="which part of it (default: val)")
    what.add_argument(
        "--short-side",
        type=short_side,
        default="configured",
        metavar="N",
        help="images are resized to this short side, pixels; 0 takes them as they are "
        "(default: as the checkpoint is configured)",
    )
    what.add_argument(
        "--limit", type=count, metavar="N", help="only the first N images (default: all of them)"
    )


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Where scoring runs."""
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--processes",
        type=count,
        default=1,
        metavar="N",
        help="processes that share the images, each with a model of its own (default: 1)",
    )
    where.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="where the model runs: auto (a GPU if there is one), cpu, or cuda, where several processes take "
        "all GPUs (default: auto)",
    )


def short_side(text: str) -> int | Literal["configured"] | None:
    """Pixels, None for 0, or the word that is the default."""
    if text == "configured":
        return "configured"
    return count_from_zero(text) or None


def refuse_missing(args: argparse.Namespace) -> None:
    """Looks at the checkpoint and the data set of `add_set_options` before torch is imported.

    Where a run is named, its checkpoint is put in its place.

    Raises:
        CheckpointError, DatasetError: there is none.
    """
    from model.storage.verify import verify
    from training.data.present import refuse_missing_data
    from training.run.folder import in_run

    refuse_missing_data(args.data)
    args.checkpoint = in_run(args.checkpoint)
    verify(args.checkpoint, digests=False)


def opened(args: argparse.Namespace) -> "tuple[LoadedCheckpoint, SegmentationFolder]":
    """The checkpoint and the data set of `add_set_options`.

    Raises:
        ModelError: the device is not there.
        CheckpointError: the checkpoint cannot be used.
        DatasetError: the data set cannot be used.
    """
    from model.storage.checkpoint import load
    from training.data.layout import SegmentationFolder

    folder = SegmentationFolder(args.data, args.split)  # first, for it is quicker to fail
    return load(args.checkpoint, device=device_of(args)), folder


def device_of(args: argparse.Namespace) -> str:
    """The device of `add_process_options`, by torch's name.

    Raises:
        ModelError: this machine has it not.
    """
    from model.network.device import device_named

    return str(device_named(args.device))


def options(
    args: argparse.Namespace, pictures: Path | None = None, picture_count: int = 1, batch: int = 1
) -> "Options":
    """How to go through the data set."""
    from training.evaluation.confusion_counts import Options

    return Options(
        short_side=args.short_side,
        limit=args.limit,
        pictures=pictures,
        picture_count=picture_count,
        batch=batch,
    )


def run(args: argparse.Namespace) -> int:
    """`ebseg evaluate`."""
    from training.errors import TrainingError

    if args.picture_count is not None and args.pictures is None:
        raise TrainingError("--picture-count needs --pictures, the folder for them")
    if args.save and args.balance != "configured":
        raise TrainingError("--save is for scores of the checkpoint as it is, not with another --balance")
    from training.run.folder import run_of

    refuse_missing(args)
    run_folder = run_of(args.checkpoint) if args.save else None  # before torch is imported

    from training.evaluation.evaluate import evaluate_checkpoint

    how = options(args, args.pictures, args.picture_count or PICTURES, args.batch)
    loaded, folder = opened(args)
    differs = _differences(args, folder) if args.protocol else None
    balance = _balance(args.balance, loaded.ebseg.config.balance)
    found = evaluate_checkpoint(loaded, folder, balance=balance, processes=args.processes, options=how)
    found = dataclasses.replace(found, differs=differs)
    if args.confusion is not None:
        from training.evaluation.confusion_report import write_confusion

        write_confusion(args.confusion, found.confusion, found.names)
    if args.worst is not None:
        from training.evaluation.worst import draw_worst

        draw_worst(loaded.ebseg, folder, found, args.worst, balance=balance, options=how)
    if run_folder is not None:
        from training.run.artifacts import write_metrics

        write_metrics(run_folder, loaded.manifest.training.get("step"), found.to_json())
    if args.json:
        where = {
            "checkpoint": f"{loaded.manifest.name}/{loaded.manifest.version}",
            "balance": args.balance,
        }
        print(json.dumps(where | found.to_json()))
    else:
        print(f"{found.table()}\nnext: {_next(args, run_folder)}")
    return 0


def _next(args: argparse.Namespace, run_folder: Path | None) -> str:
    """What to do with the scores."""
    if run_folder is not None:
        return f"ebseg publish {run_folder} registry/NAME"
    if args.pictures is not None:
        return f"look at {args.pictures}"
    return "the same with --pictures DIR shows where it is wrong"


def _differences(args: argparse.Namespace, folder: "SegmentationFolder") -> tuple[str, ...]:
    """What is otherwise than in the released evaluation: of the data, and of how it is gone through.

    Raises:
        DatasetError: the data set is no prepared benchmark.
    """
    from training.data.protocol import read_differences

    found = [*read_differences(folder.root)]
    if args.short_side != "configured":
        found.append("images have another short side than the checkpoint is configured with")
    if args.limit is not None and args.limit < len(folder):
        found.append(f"{args.limit} of {len(folder)} images are scored")
    if args.balance != "configured":
        found.append(f"embeddings are balanced otherwise: {args.balance}")
    return tuple(found)


def _balance(word: str, own: "Balance") -> "Balance":
    from training.ablate.subsets import restricted

    balances = {
        "configured": own,
        "geometric": dataclasses.replace(own, mean="geometric"),
        "arithmetic": dataclasses.replace(own, mean="arithmetic"),
        "off": restricted(own, "B"),
    }
    return balances[word]
