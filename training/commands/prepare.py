"""`ebseg prepare`: a public data set or an annotation tool's export in the one layout."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count
from training.data.exports.options import VAL_SHARE, ExportOptions

if TYPE_CHECKING:
    from training.data.prepare.convert import PreparedDataset

# The keys of training.data.prepare.convert.ARCHIVES, which needs numpy.
ARCHIVES = ("coco-stuff", "voc", "pascal-context-59", "pascal-context-459", "ade20k-150", "ade20k-847")
# What training.data.exports.convert reads.
EXPORTS = ("coco", "labelme", "label-studio", "cvat", "masks")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "prepare",
        run,
        "turn a public data set or your own annotated images into the layout that training reads",
        """
  ebseg prepare labelme photos data/harbour
  ebseg prepare coco annotations.json data/harbour --pictures photos
  ebseg prepare label-studio export.json data/harbour --pictures photos --ignore sky
  ebseg prepare cvat annotations.xml data/harbour --pictures photos --val-share 0.3
  ebseg prepare masks masks data/harbour --pictures photos --classes labels.txt
  ebseg prepare coco-stuff downloads/coco data/coco-stuff
  ebseg prepare ade20k-150 downloads data/ade20k-150 --splits val
  ebseg prepare voc downloads data/voc --splits train,val,trainaug --jobs 8
  ebseg prepare ade20k-847 downloads data/ade20k-847 --splits val --protocol official

A public data set goes on where the first run ended; of an export a second run makes all anew.""",
    )
    parser.add_argument(
        "name",
        choices=(*EXPORTS, *ARCHIVES),
        metavar="NAME",
        help=f"format of an export ({', '.join(EXPORTS)}), or a public data set ({', '.join(ARCHIVES)})",
    )
    parser.add_argument(
        "src",
        type=Path,
        metavar="SRC",
        help="the export's file or folder, or what downloads were unpacked in",
    )
    parser.add_argument("dst", type=Path, metavar="DST", help="folder to write; new, or made by this command")
    parser.add_argument("--jobs", type=count, metavar="N", help="processes (default: one a CPU)")
    parser.add_argument(
        "--link",
        action="store_true",
        help="give images that need no change a second name (a hard link) in place of a copy",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    own = parser.add_argument_group("exports")
    own.add_argument(
        "--pictures", type=Path, metavar="DIR", help="folder of the images, if they are not beside SRC"
    )
    own.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="names, one a line, in the order of the labels; for masks by colour NAME:RED,GREEN,BLUE",
    )
    own.add_argument(
        "--ignore", metavar="LIST", help="names with commas between them whose regions are of no class"
    )
    own.add_argument(
        "--val-share",
        type=float,
        metavar="X",
        help=f"share of images to validate on, if the export has no splits (default: {VAL_SHARE})",
    )
    public = parser.add_argument_group("public data sets")
    public.add_argument(
        "--splits", metavar="LIST", help="names with commas between them (default: train,val)"
    )
    public.add_argument(
        "--protocol",
        choices=("own", "official"),
        help="official: as the released evaluation has it, what its scores are of (default: own)",
    )
    public.add_argument("--force", action="store_true", help="make pairs anew that an earlier run has made")


def run(arguments: argparse.Namespace) -> int:
    """Runs `ebseg prepare`.

    Raises:
        DatasetError: the files are not what they should be; the message lists them.
    """
    export = arguments.name in EXPORTS
    _refuse_options(
        arguments,
        ("splits", "force", "protocol") if export else ("pictures", "classes", "ignore", "val_share"),
    )
    made = _export(arguments) if export else _archive(arguments)
    print(json.dumps(made.to_json()) if arguments.json else f"{_table(made)}\nnext: ebseg check {made.root}")
    return 0


def _refuse_options(arguments: argparse.Namespace, names: tuple[str, ...]) -> None:
    from training.errors import DatasetError

    given = [name for name in names if getattr(arguments, name) not in (None, False)]
    if given:
        kind = "public data sets" if arguments.name in EXPORTS else "exports"
        raise DatasetError(f"--{given[0].replace('_', '-')} is for {kind}, and {arguments.name} is none")


def _export(arguments: argparse.Namespace) -> "PreparedDataset":
    share = arguments.val_share
    options = ExportOptions(
        pictures=arguments.pictures,
        classes=arguments.classes,
        ignored=_names(arguments.ignore) if arguments.ignore else (),
        link=arguments.link,
        val_share=VAL_SHARE if share is None else share,
    )
    from training.data.exports.convert import prepare_export

    return prepare_export(arguments.name, arguments.src, arguments.dst, options, jobs=arguments.jobs)


def _archive(arguments: argparse.Namespace) -> "PreparedDataset":
    from training.data.prepare.convert import prepare

    return prepare(
        arguments.name,
        arguments.src,
        arguments.dst,
        splits=None if arguments.splits is None else [*_names(arguments.splits)],
        jobs=arguments.jobs,
        force=arguments.force,
        link=arguments.link,
        protocol=arguments.protocol or "own",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


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
