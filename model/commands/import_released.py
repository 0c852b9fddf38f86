"""`ebseg import`."""

import argparse
from pathlib import Path

from model.command import JSON_HELP, add_command
from model.commands.places import OUT_HELP, VARIANTS, name_and_version
from model.commands.telling import progress_bars, report
from model.errors import CheckpointError


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "import",
        run,
        "turn a released EBSeg checkpoint into a versioned checkpoint folder",
        """
  ebseg import EBSeg_base.pth --variant base --out registry/ebseg-base/1
  ebseg import EBSeg_large.pth --variant large --out registry/ebseg-large/1 --json
""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help='torch file that holds {"model": state_dict}')
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="configuration of the weights")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=OUT_HELP)
    parser.add_argument(
        "--training-classes",
        type=Path,
        metavar="FILE",
        help="JSON file of the classes that the weights were trained on (default: COCO-Stuff's 171)",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg import`."""
    name, version = name_and_version(args.out)
    from model.cards import RELEASED_LICENSE, released
    from model.checkpoint import save
    from model.files import refuse_taken, sha256
    from model.manifest import json_object
    from model.official import load_official
    from model.torch_file import read_state_dict
    from model.vocabulary import TrainingClasses

    refuse_taken(args.out)
    classes = None
    if args.training_classes is not None:
        try:
            text = args.training_classes.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{args.training_classes} cannot be read: {error.strerror or error}"
            ) from None
        classes = TrainingClasses.from_json(json_object(text, str(args.training_classes)))
    state_dict = read_state_dict(args.file)
    try:
        ebseg = load_official(state_dict, args.variant, training_classes=classes)
    except CheckpointError as error:
        raise CheckpointError(f"{args.file}: {error}") from None
    with progress_bars() as progress:
        notes = {"imported_from": args.file.name, "sha256": sha256(args.file, progress)}
        manifest = save(
            ebseg,
            args.out,
            name=name,
            version=version,
            untrained=False,
            notes=notes,
            license=RELEASED_LICENSE,
            card=released(args.variant, own_classes=classes is not None),
            progress=progress,
        )
    report(args, manifest, f"imported {args.file} as {args.out}")
    return 0
