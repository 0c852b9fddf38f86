"""`ebseg storybook`: draws the data set that every machine can make."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count, count_from_zero, seed

if TYPE_CHECKING:
    from training.storybook.classes import Book

EXAMPLES = """
  ebseg storybook data/storybook
  ebseg storybook data/held-out --train 0 --val 300 --seed 77
  ebseg storybook data/few --train 60 --val 6 --jobs 2 --json
  ebseg storybook data/families --families --train 1500
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `ebseg storybook`."""
    parser = add_command(
        commands, "storybook", run, "draw Storybook, a data set of picture-book scenes, from a seed", EXAMPLES
    )
    parser.add_argument("folder", type=Path, metavar="DST", help="folder to make")
    parser.add_argument(
        "--train",
        type=count_from_zero,
        default=6000,
        metavar="N",
        help="scenes to train on (default: 6000)",
    )
    parser.add_argument(
        "--val", type=count_from_zero, default=300, metavar="N", help="held-out scenes (default: 300)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="same seed, same files (default: 0)"
    )
    add_families(parser)
    parser.add_argument(
        "--jobs", type=count, metavar="N", help="drawing processes (default: one a processor)"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(args: argparse.Namespace) -> int:
    """`ebseg storybook`."""
    from training.storybook.generate import generate

    book = book_of(args)
    generate(args.folder, train=args.train, held_out=args.val, seed=args.seed, jobs=args.jobs, book=book)
    if args.json:
        made = {"folder": str(args.folder), "train": args.train, "val": args.val, "seed": args.seed}
        print(json.dumps(made))
    else:
        print(f"{args.folder}: {args.train} training scenes, {args.val} held-out scenes")
        evaluate = f"ebseg evaluate model/pretrained/ebseg-tiny/1 {args.folder}"
        # whose classes EBSeg-tiny never read
        print(f"next: {'ebseg train-tiny OUT --families' if args.families else evaluate}")
    return 0


def add_families(parser: argparse.ArgumentParser) -> None:
    """`--families`, for every command that draws Storybook."""
    parser.add_argument(
        "--families",
        action="store_true",
        help="Storybook's variant: families of classes that are alike, as kinds of boats, and rare words",
    )


def book_of(args: argparse.Namespace) -> "Book":
    """What `--families` chose to draw."""
    from training.storybook.classes import FAMILIES, STORYBOOK

    return FAMILIES if args.families else STORYBOOK
