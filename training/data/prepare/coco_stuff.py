"""COCO-Stuff: COCO's pictures of 2017 with label maps of things and stuff.

A label map holds the category's id - 1, from 0 to 181, and 255 where there is none. Eleven of the ids name
things that COCO never drew; their values occur nowhere, and the 171 others move up to 0..170.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.layout import read_labels
from training.data.prepare.archive import (
    ArchivePairs,
    DatasetArchive,
    Pair,
    Protocol,
    files,
    folder,
    ignoring,
    paired,
    table,
    through,
)

MISSING = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
LARGEST = 181
UNLABELLED = 255
FOLDERS = {"train": "train2017", "val": "val2017"}
LABEL_ARCHIVE = "stuffthingmaps_trainval2017.zip"


def find(src: Path, splits: Sequence[str], _: Protocol) -> ArchivePairs:
    """Pairs below the folder that the pictures' and the label maps' zip files were unpacked in.

    The label maps' zip file has no folder of its own: its `train2017` and `val2017` lie in
    `stuffthingmaps`, in `annotations`, or among the pictures.

    Raises:
        DatasetError: a folder, picture or label map is missing.
    """
    pairs: list[Pair] = []
    for split in splits:
        name = FOLDERS[split]
        pictures = folder(src, (name, f"images/{name}"), f"{name}.zip")
        parents = ("stuffthingmaps", "stuffthingmaps_trainval2017", "annotations", ".")
        maps = folder(src, [f"{parent}/{name}" for parent in parents], LABEL_ARCHIVE)
        pairs += paired(split, files(pictures, ".jpg"), files(maps, ".png"))
    return ArchivePairs(pairs=pairs)


def read(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair."""
    return through(_labels(), read_labels(pair.labels), pair.labels)


@cache
def _labels() -> NDArray[np.int64]:
    kept = [value for value in range(LARGEST + 1) if value not in MISSING]
    compact = {value: label for label, value in enumerate(kept)}
    return table(256, {**compact, **ignoring(UNLABELLED, *MISSING)})


COCO_STUFF = DatasetArchive(title="COCO-Stuff", vocabulary="coco-stuff-171", ignore=255, find=find, read=read)
