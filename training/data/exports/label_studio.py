"""Label Studio's JSON export: polygons, boxes and ellipses in percent, brush strokes as run lengths."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.exports.reading import (
    DAMAGED,
    PICTURES,
    PictureFinder,
    files_below,
    json_of,
    missing_picture,
    paths_of,
)
from training.data.exports.regions import AnnotatedPicture, DrawnRegion, Export, box, ellipse, packed, ring
from training.errors import DatasetError

KINDS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
CHANNELS = 4  # of what brush strokes are stored as: red, green, blue, alpha


def read(source: Path, finder: PictureFinder) -> Export:
    """All JSON exports of a folder, or one.

    Raises:
        DatasetError: a file is none of Label Studio's, or one of its pictures is missing.
    """
    pictures, left_out = [], Counter[str]()
    for path in files_below(source, (".json",)):
        tasks = json_of(path)
        if not isinstance(tasks, list) or not all(
            isinstance(task, dict) and isinstance(task.get("annotations"), list) for task in tasks
        ):
            raise DatasetError(f"{path} is no export of Label Studio: export as JSON, not JSON-MIN")
        for number, task in enumerate(tasks):
            where = f"{path}, task {task.get('id', number)}"
            try:
                if (picture := _picture(task, where, path, finder, left_out)) is not None:
                    pictures.append(picture)
            except DAMAGED as error:
                raise DatasetError(f"{where} is damaged: {type(error).__name__} {error}") from None
    return Export(pictures=pictures, left_out=dict(left_out))


def _picture(
    task: dict[str, Any], where: str, path: Path, finder: PictureFinder, left_out: Counter[str]
) -> AnnotatedPicture | None:
    done = [one for one in task["annotations"] if not one.get("was_cancelled")]
    if not done:
        left_out["task without annotation"] += 1
        return None
    named = next((x for x in task["data"].values() if isinstance(x, str) and _is_picture(x)), None)
    if named is None:
        raise DatasetError(f"{where} names no image in its data")
    picture = finder.find(named, path.parent)
    if picture is None:
        raise missing_picture(named, path)
    size: tuple[int, int] | None = None
    regions: list[DrawnRegion] = []
    for result in done[-1]["result"]:  # the last one, where several people annotated
        kind = str(result.get("type"))
        if kind not in KINDS:
            left_out[kind] += 1
            continue
        size = (int(result["original_height"]), int(result["original_width"]))
        regions.append(_region(kind, result["value"], size, where))
    return AnnotatedPicture(name=picture.stem, picture=picture, size=size, regions=tuple(regions))


def _is_picture(named: str) -> bool:
    """Whether a text of a task's data is a picture's path or address; captions may hold dots as well."""
    return any(path.lower().endswith(PICTURES) for path in paths_of(named))


def _region(kind: str, value: dict[str, Any], size: tuple[int, int], where: str) -> DrawnRegion:
    label = str(value[kind][0])
    height, width = size
    if kind == "brushlabels":
        values = unpacked(bytes(list(value["rle"])), height * width * CHANNELS, where)
        return DrawnRegion(label=label, mask=packed(values.reshape(height, width, CHANNELS)[..., -1] > 0))
    if kind == "polygonlabels":
        corners = ring(value["points"], where) * np.array([width, height]) / 100
        return DrawnRegion(label=label, rings=(corners,))
    x, y = value["x"] * width / 100, value["y"] * height / 100
    turned = float(value.get("rotation", 0))
    if kind == "ellipselabels":
        across, down = value["radiusX"] * width / 100, value["radiusY"] * height / 100
        return DrawnRegion(label=label, rings=(ellipse(x, y, across, down, turned),))
    right, bottom = x + value["width"] * width / 100, y + value["height"] * height / 100
    return DrawnRegion(label=label, rings=(box(x, y, right, bottom, turned),))


def unpacked(content: bytes, wanted: int, where: str) -> NDArray[np.uint8]:
    """Values of a brush stroke.

    A stream of bits: how many values there are (32 bits); their width less 1 (5); four widths less 1 of run
    lengths (4 each). Then runs: 1 for equal values, 0 for different ones; which of the four widths (2); the
    length less 1; then one value, or as many as the run is long.

    Raises:
        DatasetError: the stream ends too early, or has another number of values than is wanted.
    """
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    place = 0

    def number(width: int) -> int:
        nonlocal place
        if place + width > len(bits):
            raise DatasetError(f"{where}: the run lengths of a brush stroke end too early")
        found = int("".join(map(str, bits[place : place + width])), 2)
        place += width
        return found

    count, width = number(32), number(5) + 1
    widths = [number(4) + 1 for _ in range(4)]
    if count != wanted:
        raise DatasetError(f"{where}: a brush stroke has {count} values, the image {wanted}")
    values = np.zeros(count, np.uint8)
    start = 0
    while start < count:
        equal = number(1)
        end = start + 1 + number(widths[number(2)])
        if equal:
            values[start:end] = number(width) & 0xFF
        else:
            values[start:end] = [number(width) & 0xFF for _ in range(start, min(end, count))]
        start = end
    return values
