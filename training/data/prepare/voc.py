"""PASCAL VOC 2012: palette label maps of 20 classes, background and the outlines of objects ignored."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.layout import read_labels
from training.data.prepare.archive import (
    BACKGROUND,
    ArchivePairs,
    DatasetArchive,
    Pair,
    Protocol,
    folder,
    ignoring,
    listed,
    of_list,
    table,
    through,
)

CLASSES = 20
OUTLINE = 255
ARCHIVE = "VOCtrainval_11-May-2012.tar"
MAPS, AUGMENTED_MAPS = "SegmentationClass", "SegmentationClassAug"
OTHER_MAPS = f"labels are those of {MAPS}; the released evaluation takes {AUGMENTED_MAPS}"
AUGMENTED = "trainaug"
AUGMENTED_ARCHIVE = "SegmentationClassAug.zip"  # VOC's and SBD's training pictures, 10,582 in all


def find(src: Path, splits: Sequence[str], protocol: Protocol) -> ArchivePairs:
    """Pairs that `ImageSets/Segmentation/SPLIT.txt` names below `VOCdevkit/VOC2012`.

    The label maps of `trainaug` lie in `SegmentationClassAug`, all others in `SegmentationClass`; by the
    official protocol all in the first, where it is there.

    Raises:
        DatasetError: a folder, list, picture or label map is missing.
    """
    pictures = folder(src, [f"{root}/JPEGImages" for root in ("VOCdevkit/VOC2012", "VOC2012", ".")], ARCHIVE)
    root = pictures.parent
    pairs: list[Pair] = []
    augmented = protocol == "official" and (root / AUGMENTED_MAPS).is_dir()
    for split in splits:
        name = AUGMENTED_MAPS if split == AUGMENTED or augmented else MAPS
        source = AUGMENTED_ARCHIVE if name == AUGMENTED_MAPS else ARCHIVE
        maps = folder(root, (name,), source)
        names = listed(root / "ImageSets" / "Segmentation" / f"{split}.txt", source)
        pairs += of_list(split, names, pictures, maps, ".png")
    return ArchivePairs(pairs=pairs, differs=() if augmented else (OTHER_MAPS,))


def read(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair."""
    return through(_labels(), read_labels(pair.labels), pair.labels)


@cache
def _labels() -> NDArray[np.int64]:
    return table(256, {value + 1: value for value in range(CLASSES)} | ignoring(BACKGROUND, OUTLINE))


VOC = DatasetArchive(
    title="PASCAL VOC 2012",
    vocabulary="voc-20",
    ignore=255,
    further_splits=("trainval", AUGMENTED),
    find=find,
    read=read,
)
