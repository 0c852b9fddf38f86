"""Label map to what clients read: RLE, polygons, PNG, array, overlay.

Label maps are uint16 [H, W]; 0 is "other", k is class k - 1.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pycocotools import mask as coco

from service.colors import OTHER

Labels = NDArray[np.uint16]
Ring = list[list[int]]
MOST_PALETTE_CLASSES = 255  # a palette has 256 entries, and one is "other"
WEBP_LONGEST = 16383  # pixels of a side that WebP can hold
OPACITY = 0.5
BLOCK = 1 << 20  # pixels worked on at a time


def statistics(
    labels: Labels, confidence: NDArray[np.float32], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels and mean confidence of each label, both [classes + 1]; the first is "other".

    The mean over no pixels is 0.
    """
    area, total = np.zeros(classes + 1, np.int64), np.zeros(classes + 1)
    rows = max(1, BLOCK // labels.shape[1])
    for top in range(0, len(labels), rows):  # bincount makes 16 bytes of every pixel
        block = labels[top : top + rows].ravel()
        area += np.bincount(block, minlength=classes + 1)
        total += np.bincount(block, confidence[top : top + rows].ravel(), minlength=classes + 1)
    return area, total / np.maximum(area, 1)


def rles(labels: Labels, classes: int) -> list[dict[str, Any]]:
    """COCO's compressed RLE of every class, `{"size": [H, W], "counts": text}`.

    One pass over the picture finds all runs, so the time hardly grows with the number of classes.
    """
    height, width = labels.shape
    flat = labels.T.ravel()  # COCO counts down the columns
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(1, classes + 2))
    uncompressed = []
    for first, last in pairwise(bounds):
        runs = order[first:last]
        # gap, run, gap, run, ..., gap: the differences of all borders
        borders = np.empty(2 * len(runs) + 2, np.int64)
        borders[0], borders[-1] = 0, flat.size
        borders[1:-1:2], borders[2:-1:2] = starts[runs], ends[runs]
        counts = np.diff(borders)
        uncompressed.append({"size": [height, width], "counts": counts[: len(counts) - (counts[-1] == 0)]})
    return [
        {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        for rle in coco.frPyObjects(uncompressed, height, width)
    ]


def polygons(labels: Labels, label: int) -> list[dict[str, list[Any]]]:
    """Outlines of a label's regions along the edges of its pixels, with their holes.

    Corners are at whole numbers, [x, y] from the picture's upper left corner, so a lone pixel is a
    square of area 1, and the rings, filled by the even-odd rule, give the mask back exactly. Pixels
    that touch at a corner belong to one region.

    Returns:
        `{"exterior": ring, "holes": [ring, ...]}` a region; a ring's last point is not its first.
    """
    rows, columns = (np.flatnonzero((labels == label).any(axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = (labels[top : rows[-1] + 1, left : columns[-1] + 1] == label).astype(np.uint8)
    # OpenCV's contours run through the centres of border pixels. With every pixel doubled, the centres
    # of the small pixels tell on which side of the large one the border is.
    doubled = mask.repeat(2, 0).repeat(2, 1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    regions: dict[int, dict[str, list[Any]]] = {}
    for index, parent in enumerate(hierarchy[0][:, 3]):
        if parent < 0:
            regions[index] = {"exterior": _ring(contours[index], left, top), "holes": []}
    for index, parent in enumerate(hierarchy[0][:, 3]):
        if parent >= 0:
            regions[int(parent)]["holes"].append(_ring(contours[index], left, top))
    return list(regions.values())


def _ring(contour: NDArray[np.int32], left: int, top: int) -> Ring:
    """Contour of the doubled mask [N, 1, 2] to pixel corners, without points inside straight edges."""
    points = (contour[:, 0] + 1) // 2
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    step = points - np.roll(points, 1, 0)
    turns = (step != np.roll(step, -1, 0)).any(1)
    corners: Ring = (points[turns] + (left, top)).tolist()
    return corners


def label_png(labels: Labels, names: Sequence[str], colors: NDArray[np.uint8]) -> bytes:
    """The label map as PNG, whose pixel values are the labels.

    Up to 255 classes it is a palette picture in the classes' colours, beyond that 16-bit grey. The
    text chunk `classes` holds a JSON list of names by label; its first entry is "other".
    """
    if len(names) <= MOST_PALETTE_CLASSES:
        image = Image.fromarray(labels.astype(np.uint8), "L")
        image.putpalette([*OTHER, *colors.ravel().tolist()])
    else:
        image = Image.fromarray(labels)
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt("classes", json.dumps(["other", *names], ensure_ascii=False))
    return _saved(image, "PNG", pnginfo=chunk)


def npy(array: NDArray[Any]) -> bytes:
    """A file for `numpy.load`, without pickles."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def overlay(
    picture: NDArray[np.uint8], labels: Labels, colors: NDArray[np.uint8], opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """The picture with its classes' colours laid over it and thin borders between them.

    Args:
        picture: RGB, uint8 [H, W, 3], of the label map's size; "other" shows it untouched.
        labels: label map.
        colors: uint8 [K, 3].
        opacity: of the colours; borders are opaque.
    """
    paint = np.concatenate([np.array([OTHER], np.uint8), colors])[labels]
    blended = cv2.addWeighted(picture, 1 - opacity, paint, opacity, 0)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    blended[border] = paint[border]
    untouched = labels == 0
    blended[untouched] = picture[untouched]
    return np.asarray(blended, dtype=np.uint8)


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] at another size (rows, columns)."""
    if picture.shape[:2] == size:
        return picture
    shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=how), dtype=np.uint8)


def webp(picture: NDArray[np.uint8]) -> bytes:
    """RGB, uint8 [H, W, 3], as WebP; neither side above `WEBP_LONGEST`."""
    return _saved(Image.fromarray(picture), "WEBP", quality=85)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
