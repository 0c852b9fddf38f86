"""Label map to what clients read: RLE and arrays; `polygons.py` makes polygons, `render.py` pictures.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
"""

from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.segmentation.render import Labels

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


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one label down the columns of a label map, as COCO counts, those of a class together.

    Attributes:
        size: rows and columns of the label map.
        starts, ends: places of pixels, the end beyond the last, [R].
        bounds: where the runs of each class begin, and the last one's end, [classes + 1].
    """

    size: tuple[int, int]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    bounds: NDArray[np.int64]


def runs_of(labels: NDArray[np.uint16] | NDArray[np.int32], classes: int) -> Runs:
    """The runs of labels 1 to `classes`.

    One pass over the picture finds all of them, so the time hardly grows with the number of classes.
    """
    flat = labels.T.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(1, classes + 2))
    height, width = labels.shape
    return Runs((height, width), starts[order], ends[order], bounds)


def rles(labels: NDArray[np.uint16] | NDArray[np.int32], classes: int) -> list[dict[str, Any]]:
    """COCO's compressed RLE of every class, `{"size": [H, W], "counts": text}`."""
    return rles_of(runs_of(labels, classes))


def rles_of(runs: Runs) -> list[dict[str, Any]]:
    """The same of runs that were found."""
    height, width = runs.size
    if len(runs.bounds) == 1:
        return []  # which pycocotools does not take
    uncompressed = []
    for first, last in pairwise(runs.bounds):
        # gap, run, gap, run, ..., gap: the differences of all borders
        borders = np.empty(2 * int(last - first) + 2, np.int64)
        borders[0], borders[-1] = 0, height * width
        borders[1:-1:2], borders[2:-1:2] = runs.starts[first:last], runs.ends[first:last]
        counts = np.diff(borders)
        uncompressed.append({"size": [height, width], "counts": counts[: len(counts) - (counts[-1] == 0)]})
    return [
        {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        for rle in coco.frPyObjects(uncompressed, height, width)
    ]


def boxes(runs: Runs) -> list[list[int] | None]:
    """Left, top, width and height of every class; None of one without pixels."""
    height, _ = runs.size
    left, right = runs.starts // height, (runs.ends - 1) // height
    whole = left != right  # a run that goes on in the next column has both ends of one
    top = np.where(whole, 0, runs.starts % height)
    bottom = np.where(whole, height - 1, (runs.ends - 1) % height)
    found: list[list[int] | None] = []
    for first, last in pairwise(runs.bounds):
        if first == last:
            found.append(None)
            continue
        mine = slice(first, last)
        x, y = int(left[mine].min()), int(top[mine].min())
        found.append([x, y, int(right[mine].max()) - x + 1, int(bottom[mine].max()) - y + 1])
    return found


def share_of(scores: NDArray[np.float16], label: int) -> NDArray[np.float32]:
    """How much each pixel is of a class, 0..1: its score, divided by the sum of all where that is above 1.

    Args:
        scores: of K classes, [K, H, W].
        label: the class, from 1; one beyond K has none of any pixel.
    """
    share = np.zeros(scores.shape[1:], np.float32)
    if label > len(scores):
        return share
    rows = max(1, BLOCK // scores.shape[2])
    for top in range(0, len(share), rows):
        block = scores[:, top : top + rows].astype(np.float32)
        share[top : top + rows] = block[label - 1] / np.maximum(block.sum(0), 1)
    return share


def npy(array: NDArray[Any]) -> bytes:
    """A file for `numpy.load`, without pickles."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] at another size (rows, columns)."""
    if picture.shape[:2] == size:
        return picture
    shrinks = size[0] * size[1] < picture.shape[0] * picture.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=how), dtype=np.uint8)
