"""PASCAL Context: VOC 2010's pictures with whole-scene labels, of the 59 commonest classes or of all 459.

Two files carry the labels. The `.mat` maps of the data set's own page hold ids of 1..459. The annotation
file of the later challenge "PASCAL in Detail" holds masks of 59 of these ids, a little different along
the outlines, and lists of 4,996 training and 5,104 validation pictures; published scores for 59 classes
are of these masks. Without that file the maps serve for 59 classes too, and VOC's lists say which
picture belongs where: 4,998 and 5,105.
"""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.layout import IGNORED
from training.data.prepare import rle
from training.data.prepare.archive import (
    BACKGROUND,
    ArchivePairs,
    DatasetArchive,
    Pair,
    Protocol,
    Regions,
    folder,
    ignoring,
    listed,
    of_list,
    table,
    through,
)
from training.errors import DatasetError

ALL = 459
# Ids of the 59 classes in the list of 459, from 1; in this order they are labels 0 to 58.
COMMON_IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144),
    *(158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354),
    *(355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
VOC_ARCHIVE = "VOCtrainval_03-May-2010.tar"
MAPS_ARCHIVE = "trainval.tar.gz of PASCAL Context"
DETAIL_FILE = "trainval_merged.json"
OTHER_LISTS = f"the lists are VOC's, of 5,105 images; the released evaluation has the 5,104 of {DETAIL_FILE}"
OTHER_LABELS = f"labels are those of the .mat maps; the released evaluation takes the masks of {DETAIL_FILE}"


def find_common(src: Path, splits: Sequence[str], protocol: Protocol) -> ArchivePairs:
    """Pairs for 59 classes: masks of `trainval_merged.json` if it is there, else the `.mat` maps.

    Raises:
        DatasetError: a folder or file is missing, or the annotation file is damaged.
    """
    root = _root(src)
    path = _detail_file(src, root, protocol)
    if path is None:
        found = _find_maps(src, root, splits, None)
        return dataclasses.replace(found, differs=(*found.differs, OTHER_LABELS))
    pictures = root / "JPEGImages"
    pairs: list[Pair] = []
    for split, regions in _detail(path, splits).items():
        named = {Path(name).stem: masks for name, masks in regions.items()}
        # One file holds all labels, so pictures alone can be missing.
        there = of_list(split, list(named), pictures, pictures, ".jpg")
        pairs += [dataclasses.replace(pair, labels=path, regions=named[pair.name]) for pair in there]
    return ArchivePairs(pairs=pairs, source=f"masks of {path}")


def find_all(src: Path, splits: Sequence[str], protocol: Protocol) -> ArchivePairs:
    """Pairs for 459 classes, from the `.mat` maps.

    Raises:
        DatasetError: a folder or file is missing, or the annotation file is damaged.
    """
    root = _root(src)
    return _find_maps(src, root, splits, _detail_file(src, root, protocol))


def read_common(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair for 59 classes.

    Raises:
        DatasetError: a map or mask is damaged, or an id is none of PASCAL Context's.
    """
    if pair.regions is None:
        return through(_common_labels(IGNORED), _label_map(pair.labels), pair.labels)
    regions = pair.regions
    ids = np.zeros((regions.height, regions.width), np.int64)
    for category, counts in regions.masks:
        try:
            ids[rle.decode(counts, regions.height, regions.width)] = category
        except ValueError as error:
            raise DatasetError(f"{pair.labels}, {pair.picture.name}: {error}") from error
    return through(_common_labels(None), ids, pair.labels)


def read_all(pair: Pair) -> NDArray[np.int64]:
    """Labels of a pair for 459 classes: stored id - 1.

    Raises:
        DatasetError: the map is damaged, or an id is none of PASCAL Context's.
    """
    return through(_all_labels(), _label_map(pair.labels), pair.labels)


def _root(src: Path) -> Path:
    roots = ("VOCdevkit/VOC2010", "VOC2010", ".")
    return folder(src, [f"{root}/JPEGImages" for root in roots], VOC_ARCHIVE).parent


def _detail_file(src: Path, root: Path, protocol: Protocol) -> Path | None:
    found = [path for path in (root / DETAIL_FILE, src / DETAIL_FILE) if path.is_file()]
    if not found and protocol == "official":
        raise DatasetError(
            f"the official protocol takes its lists from {root / DETAIL_FILE}, which is missing: it is the "
            "annotation file of PASCAL in Detail"
        )
    return found[0] if found else None


def _find_maps(src: Path, root: Path, splits: Sequence[str], detail: Path | None) -> ArchivePairs:
    """Pairs with `.mat` maps, split by the annotation file or by VOC's own lists."""
    pictures = root / "JPEGImages"
    maps = folder(src, ("trainval", "VOCdevkit/VOC2010/trainval", "VOC2010/trainval"), MAPS_ARCHIVE)
    lists = root / "ImageSets" / "Main"
    if detail is None:
        names = {split: listed(lists / f"{split}.txt", VOC_ARCHIVE) for split in splits}
    else:
        names = {
            split: [Path(name).stem for name in found] for split, found in _detail(detail, splits).items()
        }
    pairs = [pair for split in splits for pair in of_list(split, names[split], pictures, maps, ".mat")]
    return ArchivePairs(
        pairs=pairs,
        source=f"maps of {maps}, lists of {detail or lists}",
        differs=() if detail else (OTHER_LISTS,),
    )


def _detail(path: Path, splits: Sequence[str]) -> dict[str, dict[str, Regions]]:
    """For each split the masks of each picture file, in the order in which they are drawn."""
    try:
        content = json.loads(path.read_bytes())
        images = {image["image_id"]: image for image in content["images"] if image["phase"] in splits}
        masks: dict[int, list[tuple[int, str | tuple[int, ...]]]] = {key: [] for key in images}
        for item in content["annos_segmentation"]:
            if item["image_id"] in masks:
                masks[item["image_id"]].append((item["category_id"], _counts(item)))
        found: dict[str, dict[str, Regions]] = {split: {} for split in splits}
        for key, image in images.items():
            found[image["phase"]][image["file_name"]] = Regions(
                height=image["height"], width=image["width"], masks=tuple(masks[key])
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is no annotation file of PASCAL in Detail, or is damaged ({error!r})"
        ) from error
    return found


def _counts(item: Any) -> str | tuple[int, ...]:
    counts = item["segmentation"]["counts"]
    return counts if isinstance(counts, str) else tuple(int(count) for count in counts)


def _label_map(path: Path) -> NDArray[Any]:
    """The `LabelMap` of a MATLAB file, [H, W] ids."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored = loadmat(path, variable_names=["LabelMap"])["LabelMap"]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as error:
        raise DatasetError(f"{path} has no LabelMap that can be read: {error}") from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or not np.issubdtype(stored.dtype, np.integer):
        raise DatasetError(f"{path}: LabelMap must be a map of whole numbers")
    return stored


@cache
def _common_labels(others: int | None) -> NDArray[np.int64]:
    """`others` is the label of the 400 other ids; None: they are wrong."""
    rest = {} if others is None else dict.fromkeys(range(1, ALL + 1), others)
    common = {value: label for label, value in enumerate(COMMON_IDS)}
    return table(ALL + 1, {**rest, **common, **ignoring(BACKGROUND)})


@cache
def _all_labels() -> NDArray[np.int64]:
    return table(ALL + 1, {value + 1: value for value in range(ALL)} | ignoring(BACKGROUND))


PASCAL_CONTEXT_59 = DatasetArchive(
    title="PASCAL Context-59",
    vocabulary="pascal-context-59",
    ignore=255,
    find=find_common,
    read=read_common,
)
PASCAL_CONTEXT_459 = DatasetArchive(
    title="PASCAL Context-459", vocabulary="pascal-context-459", ignore=65535, find=find_all, read=read_all
)
