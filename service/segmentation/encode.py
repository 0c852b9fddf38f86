"""Label map to what clients read: RLE and arrays; `polygons.py` makes polygons, `render.py` pictures.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
"""

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
