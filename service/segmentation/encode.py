"""Label map to what clients read: numbers and arrays; `run_lengths.py` makes RLE, `polygons.py` polygons,
`render.py` pictures.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
"""

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.segmentation.render import BLOCK, Labels


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
