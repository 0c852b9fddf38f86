"""CVAT's export "CVAT for images 1.1": one XML file with polygons, boxes, ellipses and masks in pixels."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from training.data.exports.reading import DAMAGED, PictureFinder, files_below, missing_picture
from training.data.exports.regions import AnnotatedPicture, DrawnRegion, Export, box, ellipse, ring, within
from training.errors import DatasetError

SHAPES = ("polygon", "box", "ellipse", "mask")


def read(source: Path, finder: PictureFinder) -> Export:
    """All XML files of a folder, or one.

    Raises:
        DatasetError: a file is none of CVAT's, or one of its pictures is missing.
    """
    pictures, left_out = [], Counter[str]()
    for path in files_below(source, (".xml",)):
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise DatasetError(f"{path} cannot be read as XML: {error}") from None
        if root.tag != "annotations" or root.find("track") is not None:
            raise DatasetError(f"{path} is no export of the kind CVAT for images 1.1; export it as that")
        for image in root.iter("image"):
            where = f"{path}, image {image.get('name')}"
            try:
                pictures.append(_picture(image, where, path, finder, left_out))
            except DAMAGED as error:
                raise DatasetError(f"{where} is damaged: {type(error).__name__} {error}") from None
    return Export(pictures=pictures, left_out=dict(left_out))


def _picture(
    image: ElementTree.Element, where: str, path: Path, finder: PictureFinder, left_out: Counter[str]
) -> AnnotatedPicture:
    named = image.attrib["name"]
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    picture = finder.find(named, path.parent)
    if picture is None:
        raise missing_picture(named, path)
    left_out.update(shape.tag for shape in image if shape.tag not in (*SHAPES, "tag"))
    drawn = [shape for shape in image if shape.tag in SHAPES]
    drawn.sort(key=lambda shape: int(shape.get("z_order", 0)))  # keeps the order of equal ones
    subset = image.get("subset", "").lower()
    return AnnotatedPicture(
        name=Path(named).stem,
        picture=picture,
        size=size,
        split={"validation": "val"}.get(subset, subset) or None,
        regions=tuple(_region(shape, size, where) for shape in drawn),
    )


def _region(shape: ElementTree.Element, size: tuple[int, int], where: str) -> DrawnRegion:
    named = shape.attrib
    label = named["label"]
    if shape.tag == "polygon":
        corners = [[float(x) for x in corner.split(",")] for corner in named["points"].split(";")]
        return DrawnRegion(label=label, rings=(ring(corners, where),))
    if shape.tag == "box":
        left, top, right, bottom = (float(named[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
        middle = ((left + right) / 2, (top + bottom) / 2)
        turned = float(named.get("rotation", 0))
        return DrawnRegion(label=label, rings=(box(left, top, right, bottom, turned, middle),))
    if shape.tag == "ellipse":
        x, y, across, down = (float(named[name]) for name in ("cx", "cy", "rx", "ry"))
        return DrawnRegion(label=label, rings=(ellipse(x, y, across, down, float(named.get("rotation", 0))),))
    column, row, width, height = (round(float(named[name])) for name in ("left", "top", "width", "height"))
    lengths = [int(length) for length in named["rle"].split(",")]
    if min(lengths) < 0 or sum(lengths) != width * height:
        raise DatasetError(f"{where}: a mask of {label} does not fill its {width} x {height} pixels")
    part = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    return DrawnRegion(label=label, mask=within(part, column, row, size, where))
