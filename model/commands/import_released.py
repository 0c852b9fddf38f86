"""`ebseg import`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command
from model.commands.output import progress_bars, report
from model.commands.places import OUT_HELP, VARIANTS, name_and_version
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.released.account import Account
    from model.vocabulary.classes import TrainingClasses

MEANINGS = {
    "taken": "weights under their official names",
    "renamed": "weights under other names, as wrappers give them",
    "computed": "copies and constants that the file has not",
    "checked": "copies and constants that are what they should be",
    "ignored": "left out by --ignore",
    "missing": "weights that the file has not",
    "misshapen": "of another shape than they should be",
    "wrong": "of other values than they could be",
    "unknown": "what EBSeg has no use for",
}
NAMED = ("renamed", "taken")  # too many to be named one by one
MOST_NAMED = 20  # of each other kind


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "import",
        run,
        "turn a released EBSeg checkpoint into a versioned checkpoint folder",
        """
  ebseg import EBSeg_base.pth --out registry/ebseg-base/1
  ebseg import EBSeg_large.pth --variant large --out registry/ebseg-large/1 --json
  ebseg import my_run/model_0119999.pth --dry-run
  ebseg import EBSeg_base.pth --out registry/ebseg-base/2 --ignore 'ema.*' --ignore 'backbone.neck.*'
""",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help='torch file or detectron2 pickle of a state dict, alone or under "model"; nothing in it is run',
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        metavar="VARIANT",
        help=f"configuration of the weights: {', '.join(VARIANTS)} (default: what their shapes tell)",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help=OUT_HELP)
    target.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing, tell what would become of every tensor; exit code 2 if it would not be imported",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out tensors of these names that EBSeg does not need, as in 'ema.*'; may be repeated",
    )
    parser.add_argument(
        "--training-classes",
        type=Path,
        metavar="FILE",
        help="JSON file of the classes that the weights were trained on (default: COCO-Stuff's 171)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg import`."""
    name, version = name_and_version(args.out) if args.out is not None else ("", 0)
    from model.storage.files import refuse_taken, refuse_unreadable

    # before torch is imported, which takes seconds
    refuse_unreadable(args.file)
    if args.out is not None:
        refuse_taken(args.out)
    classes = _classes(args.training_classes)

    from model.released.importing import import_released, read_released

    with progress_bars() as progress:
        if args.dry_run:
            account = read_released(
                args.file, args.variant, training_classes=classes, ignore=args.ignore, progress=progress
            )
        else:
            imported = import_released(
                args.file,
                args.out,
                name=name,
                version=version,
                variant=args.variant,
                training_classes=classes,
                ignore=args.ignore,
                progress=progress,
            )
    if not args.dry_run:
        then = f"ebseg serve --checkpoint {args.out}"
        report(args, imported.manifest, f"imported {args.file} as {args.out}", then)
        return 0
    if args.json:
        print(json.dumps({"file": str(args.file)} | account.to_json()))
    else:
        _print_account(account)
    if account.problem is not None:
        raise CheckpointError(f"{args.file}: {account.problem}")
    return 0


def _classes(path: Path | None) -> "TrainingClasses | None":
    from model.storage.manifest import json_object
    from model.vocabulary.classes import TrainingClasses

    if path is None:
        return None
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    return TrainingClasses.from_json(json_object(text, str(path)))


def _print_account(account: "Account") -> None:
    """What became of the tensors: how many of each kind, and the names of what was not simply taken."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a file or pipe has no edge; names stay in one piece
    table = Table(box=None, pad_edge=False)
    for heading in ("", "tensors", "bytes", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for status, counted in account.counts().items():
        if counted["tensors"]:
            table.add_row(status, str(counted["tensors"]), f"{counted['bytes']:,}", MEANINGS[status])
    console.print(f"variant {account.variant}")
    console.print(table)
    for status in MEANINGS:
        entries = [entry for entry in account.entries if entry.status == status]
        if status in NAMED or not entries:
            continue
        console.print(f"\n{status}")
        for entry in entries[:MOST_NAMED]:
            size = "x".join(map(str, entry.shape))
            console.print(f"  {entry.name}  [{size}]  {entry.reason}".rstrip(), soft_wrap=True)
        if len(entries) > MOST_NAMED:
            console.print(f"  ... and {len(entries) - MOST_NAMED} more, which --json names")
    answer = "would not be imported" if account.problem else "would be imported"
    console.print(f"\n{answer} as variant {account.variant}")
