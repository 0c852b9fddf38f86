"""`ebseg prepare`: a public data set, unpacked as downloaded, in the one layout."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count

if TYPE_CHECKING:
    from training.data.prepare.convert import PreparedDataset

# The keys of training.data.prepare.convert.ARCHIVES, which needs numpy.
ARCHIVES = ("coco-stuff", "voc", "pascal-context-59", "pascal-context-459", "ade20k-150", "ade20k-847")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "prepare",
        run,
        "turn a public data set's own files into the one layout that training and evaluation read",
        """
  ebseg prepare coco-stuff downloads/coco data/coco-stuff
  ebseg prepare ade20k-150 downloads data/ade20k-150 --splits val
  ebseg prepare voc downloads data/voc --splits train,val,trainaug --jobs 8

A second run goes on where the first ended.""",
    )
    parser.add_argument("name", choices=ARCHIVES, metavar="NAME", help=f"one of {', '.join(ARCHIVES)}")
    parser.add_argument("src", type=Path, metavar="SRC", help="folder that the downloads were unpacked in")
    parser.add_argument("dst", type=Path, metavar="DST", help="folder to write; new, or made by this command")
    parser.add_argument(
        "--splits", metavar="LIST", help="names with commas between them (default: train,val)"
    )
    parser.add_argument("--jobs", type=count, metavar="N", help="processes (default: one a CPU)")
    parser.add_argument("--force", action="store_true", help="make pairs anew that an earlier run has made")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Runs `ebseg prepare`.

    Raises:
        DatasetError: the files are not what they should be; the message lists them.
    """
    from training.data.prepare.convert import prepare

    splits = None if arguments.splits is None else [item.strip() for item in arguments.splits.split(",")]
    made = prepare(
        arguments.name,
        arguments.src,
        arguments.dst,
        splits=splits,
        jobs=arguments.jobs,
        force=arguments.force,
    )
    print(json.dumps(made.to_json()) if arguments.json else _table(made))
    return 0


def _table(made: "PreparedDataset") -> str:
    lines = [
        f"{made.title} in {made.root}",
        f"  classes  {made.classes}, of which {made.trained} count as trained; {made.ignore} is no class",
    ]
    if made.source:
        lines.append(f"  labels   {made.source}")
    for split, done in made.splits.items():
        skipped = f", {done.skipped} of them from an earlier run" if done.skipped else ""
        lines.append(f"  {split:<8} {done.pairs} pairs{skipped}")
    return "\n".join(lines)
