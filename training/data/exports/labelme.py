"""LabelMe: a JSON file a picture, with shapes in pixels."""

import base64
import binascii
import math
from collections import Counter
from pathlib import Path
from typing import Any

from training.data.exports.reading import DAMAGED, PictureFinder, files_below, json_of, missing_picture
from training.data.exports.regions import (
    AnnotatedPicture,
    DrawnRegion,
    Export,
    box,
    ellipse,
    grey_or_alpha,
    ring,
    within,
)
from training.errors import DatasetError

WITHOUT_AREA = ("line", "linestrip", "point", "points")


def read(source: Path, finder: PictureFinder) -> Export:
    """All of a folder's LabelMe files, or one.

    Raises:
        DatasetError: a file is none of LabelMe's, or its picture is missing.
    """
    pictures, left_out = [], Counter[str]()
    for path in files_below(source, (".json",)):
        content = json_of(path)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise DatasetError(f'{path} is no LabelMe file: it has no list "shapes"')
        try:
            pictures.append(_picture(path, content, source, finder, left_out))
        except DAMAGED as error:
            raise DatasetError(f"{path} is damaged: {type(error).__name__} {error}") from None
    return Export(pictures=pictures, left_out=dict(left_out))


def _picture(
    path: Path, content: dict[str, Any], source: Path, finder: PictureFinder, left_out: Counter[str]
) -> AnnotatedPicture:
    try:
        size = (int(content["imageHeight"]), int(content["imageWidth"]))
        named = str(content["imagePath"])
    except (KeyError, TypeError, ValueError):
        raise DatasetError(f"{path} does not say imagePath, imageHeight and imageWidth") from None
    picture: Path | bytes | None = finder.find(named, path.parent)
    if picture is None:
        if not isinstance(content.get("imageData"), str):
            raise missing_picture(named, path)
        try:
            picture = base64.b64decode(content["imageData"], validate=True)
        except binascii.Error as error:
            raise DatasetError(f"{path}: imageData is damaged: {error}") from None
    regions = [
        region
        for number, shape in enumerate(content["shapes"])
        if (region := _region(shape, f"{path}, shape {number}", size, left_out)) is not None
    ]
    name = path.stem if source.is_file() else "_".join(path.relative_to(source).with_suffix("").parts)
    return AnnotatedPicture(name=name, picture=picture, size=size, regions=tuple(regions))


def _region(shape: Any, where: str, size: tuple[int, int], left_out: Counter[str]) -> DrawnRegion | None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise DatasetError(f"{where} has no label")
    kind, label, points = shape.get("shape_type", "polygon"), shape["label"], shape.get("points")
    if kind in WITHOUT_AREA:
        left_out[kind] += 1
        return None
    if kind == "polygon":
        return DrawnRegion(label=label, rings=(ring(points or [], where),))
    try:
        (left, top), (right, bottom) = ((float(x), float(y)) for x, y in points or ())
    except (TypeError, ValueError):
        raise DatasetError(f"{where}: a {kind} needs two points") from None
    if kind == "rectangle":
        return DrawnRegion(label=label, rings=(box(left, top, right, bottom),))
    if kind == "circle":  # its centre, and a point on it
        radius = math.hypot(right - left, bottom - top)
        return DrawnRegion(label=label, rings=(ellipse(left, top, radius, radius),))
    if kind == "mask":
        try:
            content = base64.b64decode(shape["mask"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise DatasetError(f"{where}: its mask is missing or damaged") from None
        part = grey_or_alpha(content, where)
        return DrawnRegion(label=label, mask=within(part, round(left), round(top), size, where))
    raise DatasetError(f"{where}: the shape {kind!r} is unknown; known are polygon, rectangle, circle, mask")
