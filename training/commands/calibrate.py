"""`ebseg calibrate`: the confidence below which a pixel is better called other."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, add_device, seed
from training.commands.evaluate import add_data_options, opened, options, refuse_missing

if TYPE_CHECKING:
    from training.evaluation.calibrate import Calibration


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "calibrate",
        run,
        'measure below which confidence a pixel is better called "other", for a checkpoint\'s card',
        """
  ebseg calibrate registry/ebseg-tiny/1 data/storybook
  ebseg calibrate registry/ebseg-base/1 data/ade20k-150 --limit 500 --write
  ebseg calibrate registry/ebseg-street/2 data/street --write --license CC-BY-4.0 --card card.json
""",
    )
    parser.description = f"{parser.description}\nDATA is what the checkpoint was not trained on."
    add_data_options(parser)
    how = parser.add_argument_group("how")
    add_device(how)
    how.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of which classes each image is asked for (default: 0)",
    )
    card = parser.add_argument_group("the card")
    card.add_argument(
        "--write", action="store_true", help="write the figures into the card of the checkpoint's manifest"
    )
    card.add_argument(
        "--license", metavar="TEXT", help='with --write: of the weights, as SPDX writes it, such as "MIT"'
    )
    card.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="JSON object of fields of the card, such as domain and words, that are to be others",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg calibrate`."""
    import dataclasses

    from training.errors import TrainingError

    if args.license is not None and not args.write:
        raise TrainingError("--license is for --write: without it nothing is written")
    refuse_missing(args)

    from model.confidence.card import ANY_NOUN, Card
    from model.storage.manifest import SCHEMA, rewrite
    from training.evaluation.calibrate import calibrate, title
    from training.progress import progress
    from training.run.cards import Described, amended

    loaded, folder = opened(args)
    manifest = loaded.manifest
    unknown = Card(domain=f"images like those of {title(folder)}", words=ANY_NOUN)
    own = Described(license=manifest.license, card=manifest.card or unknown)
    described = amended(own, license=args.license, file=args.card)
    assert described.card is not None
    how = options(args)
    with progress("calibrating", total=min(how.limit or len(folder), len(folder))) as bar:
        found = calibrate(
            loaded.ebseg,
            folder,
            described.card,
            seed=args.seed,
            options=how,
            progress=lambda _, done, __: bar.advance(done - bar.done),
        )
    if args.write:
        card = found.into(described.card)
        rewritten = dataclasses.replace(manifest, schema=SCHEMA, license=described.license, card=card)
        rewrite(loaded.directory, rewritten)
    if args.json:
        print(json.dumps(_values(found) | {"checkpoint": str(loaded.directory), "written": args.write}))
    else:
        _print(found)
        if args.write:
            print(f"written to {loaded.directory}\nnext: ebseg serve --checkpoint {loaded.directory}")
        else:
            print("next: the same with --write puts it into the checkpoint's card")
    return 0


def _values(found: "Calibration") -> dict[str, object]:
    return {
        "threshold": found.threshold,
        "threshold_note": found.note,
        "calibration": found.facts,
        "confidence": {f"{share:g}": value for share, value in found.confidence},
    }


def _print(found: "Calibration") -> None:
    facts = found.facts
    print(f"threshold {found.threshold:.3f}, {found.note}")
    print(f"F1 of named classes {facts['f1_named']:.3f}, without a threshold {facts['f1_named_without']:.3f}")
    print(f"F1 of other {facts['f1_other']:.3f}; {facts['other_found']:.1%} of it found")
    print(f"mIoU of named classes {facts['miou_named']:.1f}, without {facts['miou_named_without']:.1f}")
    levels = ", ".join(f"{value:.3f} at {share:g}" for share, value in found.confidence)
    print(f"confidence in its own words: {levels}")
