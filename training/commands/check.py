"""`ebseg check`: what is wrong with a data set, before anything trains on it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.command import JSON_HELP, add_command, count

if TYPE_CHECKING:
    from training.data.check import DataReport

PICTURES = 12  # of the worst, of --pictures
DONE, FAULTY = 0, 1


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "check",
        run,
        "say what is wrong with a data set before anything trains on it",
        """
  ebseg check data/harbour
  ebseg check data/harbour --pictures out/worst
  ebseg check data/harbour --json

The exit code is 1 if a run could not train on it, 0 if there are warnings at most.""",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="data set in the layout of `ebseg prepare`")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="folder for images of the worst, with their labels drawn in colours",
    )
    parser.add_argument("--picture-count", type=count, metavar="N", help=f"how many (default: {PICTURES})")
    parser.add_argument("--jobs", type=count, metavar="N", help="threads that read (default: one a CPU)")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)


def run(arguments: argparse.Namespace) -> int:
    """Runs `ebseg check`.

    Raises:
        DatasetError: there is no data set, or its class list is damaged.
    """
    from training.data.present import refuse_missing_data
    from training.errors import DatasetError

    if arguments.picture_count is not None and arguments.pictures is None:
        raise DatasetError("--picture-count needs --pictures, the folder for them")
    refuse_missing_data(arguments.data)
    from training.data.check import check_data

    report = check_data(arguments.data, jobs=arguments.jobs)
    drawn = []
    if arguments.pictures is not None:
        drawn = _drawn(report, arguments.pictures, arguments.picture_count or PICTURES)
    if arguments.json:
        print(json.dumps(report.to_json() | {"drawn": [str(path) for path in drawn]}))
    else:
        print(_table(report))
        if arguments.pictures is not None:
            found = f"the worst {len(drawn)} images are in {arguments.pictures}"
            print(found if drawn else f"no single image is wrong: nothing is drawn into {arguments.pictures}")
        train = f"ebseg train runs/NAME --config own-data --data {report.root}"
        print(f"next: {'mend the errors, and check again' if report.errors else train}")
    return FAULTY if report.errors else DONE


def _drawn(report: "DataReport", folder: Path, count: int) -> list[Path]:
    """Draws the worst pictures that can be read; the files that were written."""
    from training.data.layout import SegmentationFolder, read_labels
    from training.data.pictures import read_picture
    from training.errors import DatasetError
    from training.evaluation.pictures import labelled, save_picture

    paths = []
    for split, name, texts in report.worst(count):
        opened = SegmentationFolder(report.root, split)
        file, label_file = opened.files(name)
        try:
            picture, stored = read_picture(file), read_labels(label_file)
        except DatasetError:
            continue  # the report names it
        labels = stored.astype(int)
        labels[stored == opened.ignore] = -1
        names = list(report.classes)
        names += [f"{value}: no class" for value in range(len(names), int(labels.max()) + 1)]
        paths.append(folder / f"{split}-{name}.png")
        save_picture(paths[-1], labelled(picture, labels, names, texts))
    return paths


def _table(report: "DataReport") -> str:
    splits = list(report.pictures)
    width = max(map(len, (*report.classes, "class")))
    lines = [
        f"{report.root}: {', '.join(f'{split} {report.pictures[split]}' for split in splits)} images",
        "",
    ]
    lines.append(f"{'class':<{width}}" + "".join(f"  {split:>9}  {'pixels':>13}" for split in splits))
    for k, name in enumerate(report.classes):
        cells = (f"  {report.shown[split][k]:>9,}  {report.pixels[split][k]:>13,}" for split in splits)
        lines.append(f"{name:<{width}}{''.join(cells)}")
    lines.append("")
    lines += [finding.line() for finding in report.findings] or ["nothing is wrong"]
    return "\n".join(lines)
