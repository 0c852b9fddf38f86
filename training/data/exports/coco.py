"""COCO JSON: instances with polygons or run lengths, and panoptic with PNG files of segment numbers."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.exports.reading import DAMAGED, PictureFinder, files_below, json_of, missing_picture
from training.data.exports.regions import AnnotatedPicture, DrawnRegion, Export, packed, ring
from training.data.layout import opened_image
from training.data.prepare import rle
from training.errors import DatasetError

# Words of a file's name that tell its split; instances_train2017.json is of train, contest.json of none.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read(source: Path, finder: PictureFinder) -> Export:
    """All COCO files of a folder, or one.

    Raises:
        DatasetError: a file is none of COCO's, or one of its pictures is missing.
    """
    pictures: list[AnnotatedPicture] = []
    names: dict[str, None] = {}
    for path in files_below(source, (".json",)):
        content = json_of(path)
        if not isinstance(content, dict) or not all(
            isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
        ):
            raise DatasetError(
                f'{path} is no COCO file: it needs lists "images", "annotations", "categories"'
            )
        try:
            categories = {int(one["id"]): str(one["name"]) for one in content["categories"]}
            pictures += _pictures(path, content, categories, finder)
        except DAMAGED as error:
            raise DatasetError(f"{path} is no whole COCO file: {type(error).__name__} {error}") from None
        names |= dict.fromkeys(categories.values())
    return Export(pictures=pictures, classes=tuple(names))


def _pictures(
    path: Path, content: dict[str, Any], categories: dict[int, str], finder: PictureFinder
) -> list[AnnotatedPicture]:
    drawn: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in content["annotations"]:
        drawn[one["image_id"]].append(one)
    words = re.findall("[a-z]+", path.stem.lower())
    split = next((SPLITS[word] for word in words if word in SPLITS), None)
    found = []
    for image in content["images"]:
        named, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
        picture = finder.find(named, path.parent)
        if picture is None:
            raise missing_picture(named, path)
        own = drawn.pop(image["id"], [])
        regions: list[DrawnRegion] = []
        for one in own:
            if "segments_info" in one:
                regions += _panoptic(one, categories, path)
            else:
                regions.append(_region(one, categories, size, path))
        # COCO has no order: what is smaller lies on top
        regions.sort(key=lambda region: -region.area(*size))
        found.append(
            AnnotatedPicture(
                name=Path(named).stem, picture=picture, size=size, split=split, regions=tuple(regions)
            )
        )
    if drawn:
        raise DatasetError(f"{path}: annotations of the image {min(drawn)!r}, which is not among its images")
    return found


def _region(
    one: dict[str, Any], categories: dict[int, str], size: tuple[int, int], path: Path
) -> DrawnRegion:
    where = f"{path}, annotation {one.get('id')}"
    label = _category(one, categories, where)
    segmentation = one.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        rings = tuple(ring(np.reshape(part, (-1, 2)).tolist(), where) for part in segmentation)
        return DrawnRegion(label=label, rings=rings)
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != list(size):
            raise DatasetError(
                f"{where}: its mask has the size {segmentation['size']}, the image {list(size)}"
            )
        try:
            return DrawnRegion(label=label, mask=packed(rle.decode(segmentation["counts"], *size)))
        except ValueError as error:
            raise DatasetError(f"{where}: {error}") from None
    raise DatasetError(f"{where} has no segmentation, only a box: masks are needed")


def _panoptic(one: dict[str, Any], categories: dict[int, str], path: Path) -> list[DrawnRegion]:
    named = str(one["file_name"])
    places = (path.with_suffix("") / named, path.parent / named)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DatasetError(f"{path}: {named} is neither in {places[0].parent} nor in {path.parent}")
    with opened_image(file) as image:
        colors = np.asarray(image.convert("RGB"), dtype=np.int64)
    numbers: NDArray[np.int64] = colors @ np.array([1, 256, 65536])
    return [
        DrawnRegion(
            label=_category(segment, categories, f"{path}, {named}"),
            mask=packed(numbers == int(segment["id"])),
        )
        for segment in one["segments_info"]
    ]


def _category(one: dict[str, Any], categories: dict[int, str], where: str) -> str:
    if one.get("category_id") not in categories:
        raise DatasetError(f"{where}: there is no category {one.get('category_id')!r}")
    return categories[one["category_id"]]
