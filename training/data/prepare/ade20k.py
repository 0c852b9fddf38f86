"""ADE20K: the scene parsing benchmark of 150 classes, and the full release with 847."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.layout import IGNORED, opened_image, read_labels
from training.data.prepare.ade20k_ids import FULL_CODES
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
from training.errors import DatasetError

CLASSES = 150
UNLABELLED = 0
FOLDERS = {"train": "training", "val": "validation"}
BENCHMARK = "ADEChallengeData2016"
FULL = "ADE20K_2021_17_01"
LARGEST_CODE = 255 // 10 * 256 + 255
SHRUNK_OTHERWISE = (
    "large images were shrunk as for the network and saved as JPEG of quality 95; the released evaluation "
    "shrinks them by OpenCV's bilinear interpolation and saves them at 75"
)
SHORT_SIDE = 512  # pixels; pictures of the full release are shrunk to it


def find_benchmark(src: Path, splits: Sequence[str], _: Protocol) -> ArchivePairs:
    """Pairs of `images` and `annotations` below `ADEChallengeData2016`.

    Raises:
        DatasetError: a folder, picture or label map is missing.
    """
    pairs: list[Pair] = []
    for split in splits:
        name = FOLDERS[split]
        pictures, maps = (
            folder(src, (f"{BENCHMARK}/{kind}/{name}", f"{kind}/{name}"), f"{BENCHMARK}.zip")
            for kind in ("images", "annotations")
        )
        pairs += paired(split, files(pictures, ".jpg"), files(maps, ".png"))
    return ArchivePairs(pairs=pairs)


def read_benchmark(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair: stored value - 1."""
    return through(_benchmark_labels(), read_labels(pair.labels), pair.labels)


def find_full(src: Path, splits: Sequence[str], protocol: Protocol) -> ArchivePairs:
    """Pairs in the scene folders below `ADE20K_2021_17_01/images/ADE`.

    The release's index is a pickle, which is neither needed nor read: names tell the pairs, and the
    codes of the classes are known.

    Raises:
        DatasetError: a folder, picture or label map is missing.
    """
    pairs: list[Pair] = []
    for split in splits:
        name = FOLDERS[split]
        candidates = (f"{FULL}/images/ADE/{name}", f"images/ADE/{name}")
        pictures, maps = _scenes(folder(src, candidates, f"{FULL}.zip"))
        pairs += paired(split, pictures, maps)
    return ArchivePairs(pairs=pairs, differs=() if protocol == "official" else (SHRUNK_OTHERWISE,))


def read_full(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair: red and green of the `_seg.png` spell a code, and most codes are no class.

    Raises:
        DatasetError: the file cannot be read.
    """
    with opened_image(pair.labels) as image:  # codes, no colours
        stored = np.asarray(image.convert("RGB"), dtype=np.int64)
    return through(_full_labels(), stored[..., 0] // 10 * 256 + stored[..., 1], pair.labels)


def _scenes(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Pictures and label maps of a split, by the picture's stem."""
    pictures: dict[str, Path] = {}
    maps: dict[str, Path] = {}
    for parent, folders, names in os.walk(root):
        # A folder named like a picture holds the masks of its objects, one a file.
        folders[:] = sorted(name for name in folders if not name.startswith("ADE_"))
        for name in sorted(names):
            target, stem = (maps, name.removesuffix("_seg.png"))
            if name.endswith(".jpg"):
                target, stem = pictures, name.removesuffix(".jpg")
            elif stem == name:
                continue
            if stem in target:
                raise DatasetError(f"{target[stem]} and {Path(parent) / name} have one name")
            target[stem] = Path(parent) / name
    return pictures, maps


@cache
def _benchmark_labels() -> NDArray[np.int64]:
    return table(256, {value + 1: value for value in range(CLASSES)} | ignoring(UNLABELLED))


@cache
def _full_labels() -> NDArray[np.int64]:
    codes = {code: label for label, code in enumerate(FULL_CODES)}
    return table(LARGEST_CODE + 1, codes, others=IGNORED)


ADE20K_150 = DatasetArchive(
    title="ADE20K-150", vocabulary="ade20k-150", ignore=255, find=find_benchmark, read=read_benchmark
)
ADE20K_847 = DatasetArchive(
    title="ADE20K-847",
    vocabulary="ade20k-847",
    ignore=65535,
    find=find_full,
    read=read_full,
    longest_short_side=SHORT_SIDE,
)
