"""`ebseg init`."""

import argparse
import logging
from pathlib import Path

from model.command import JSON_HELP, add_command, seed
from model.commands.output import progress_bars, report
from model.commands.places import OUT_HELP, VARIANTS, name_and_version

_LOG = logging.getLogger(__name__)


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        subparsers,
        "init",
        run,
        "make an untrained checkpoint folder, for tests and measurements",
        """
  ebseg init --variant tiny --out registry/ebseg-tiny/1
  ebseg init --variant base --seed 7 --out registry/ebseg-base/1
""",
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        required=True,
        metavar="VARIANT",
        help=f"configuration to build: {', '.join(VARIANTS)}",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the weights (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help=OUT_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg init`."""
    name, version = name_and_version(args.out)
    from model.storage.files import refuse_taken

    refuse_taken(args.out)  # before torch is imported, which takes seconds

    from model.network import config
    from model.network.build import build
    from model.released.cards import UNTRAINED_LICENSE, untrained
    from model.storage.checkpoint import Provenance, save
    from model.vocabulary.classes import TrainingClasses

    ebseg = build(config.VARIANTS[args.variant], TrainingClasses.coco_stuff(), seed=args.seed)
    with progress_bars() as progress:
        notes = {"initialised_with_seed": args.seed}
        manifest = save(
            ebseg,
            args.out,
            Provenance(
                name=name,
                version=version,
                untrained=True,
                notes=notes,
                license=UNTRAINED_LICENSE,
                card=untrained(),
            ),
            progress=progress,
        )
    _LOG.warning("%s version %d is untrained: its masks mean nothing", name, version)
    report(args, manifest, f"made {args.out}, untrained", f"ebseg inspect {args.out}")
    return 0
