"""Label map to regions: pixels of one class that touch along an edge, all classes in one pass.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from service.segmentation.render import Labels

BAND = 1 << 19  # pixels worked on at a time


@dataclass(frozen=True, slots=True)
class RegionSet:
    """R regions: by class, the largest first, and of equal ones the upper one.

    Attributes:
        numbers: int32 [H, W]; 0 for "other" and what was left out, r for the r-th region.
        labels: the class of each, [R].
        areas: pixels, [R].
        boxes: left, top, width and height in pixels, [R, 4].
        scores: mean confidence, 0..1, [R].
        left_out: how many regions were too small, or too many.
        left_out_area: their pixels.
    """

    numbers: NDArray[np.int32]
    labels: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    scores: NDArray[np.float64]
    left_out: int
    left_out_area: int

    def __len__(self) -> int:
        return len(self.labels)


def find_regions(
    labels: Labels,
    confidence: NDArray[np.float32],
    *,
    min_area: int,
    max_count: int,
    check: Callable[[], None] = lambda: None,
) -> RegionSet:
    """The regions of a label map.

    A picture of twice the size has a pixel for each pixel, and one between two that are of one class: its
    connected components (by edges) are the regions of all classes at once. It takes 20 bytes a pixel of the
    label map, and hardly more time for many classes or regions than for few.

    Args:
        labels: label map.
        confidence: 0..1, [H, W].
        min_area: pixels; smaller ones are left out.
        max_count: the largest so many are kept.
        check: called now and then; may raise.
    """
    check()
    count, numbers = _components(labels)
    check()
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    first = _first_pixels(numbers, count)
    large = np.flatnonzero(areas[1:] >= min_area) + 1
    if len(large) > max_count:
        large = large[np.lexsort((first[large], -areas[large]))[:max_count]]
    kept = large[np.lexsort((first[large], -areas[large], labels.ravel()[first[large]]))]
    left_out_area = int(areas[1:].sum() - areas[kept].sum())
    renumbered = np.zeros(count + 1, np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    check()
    numbers = renumbered[numbers]
    return RegionSet(
        numbers=numbers,
        labels=labels.ravel()[first[kept]].astype(np.int64),
        areas=areas[kept].astype(np.int64),
        boxes=_boxes(numbers, len(kept)),
        scores=_means(numbers, confidence, areas[kept]),
        left_out=count - len(kept),
        left_out_area=left_out_area,
    )


def _components(labels: Labels) -> tuple[int, NDArray[np.int32]]:
    """How many there are, and the number of each pixel's; 0 is none."""
    height, width = labels.shape
    doubled = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    there = labels != 0
    doubled[::2, ::2] = there
    doubled[::2, 1::2] = (labels[:, 1:] == labels[:, :-1]) & there[:, 1:]
    doubled[1::2, ::2] = (labels[1:] == labels[:-1]) & there[1:]
    count, numbers = cv2.connectedComponents(doubled, connectivity=4, ltype=cv2.CV_32S)
    return count - 1, np.ascontiguousarray(numbers[::2, ::2], dtype=np.int32)


def _first_pixels(numbers: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """The place of each component's first pixel, in the order of reading."""
    first = np.zeros(count + 1, np.int64)
    flat = numbers.ravel()
    # of several values for one place the last one stays, so the places go backwards
    first[flat[::-1]] = np.arange(flat.size - 1, -1, -1)
    return first


def _boxes(numbers: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Left, top, width and height of each region, [count, 4]."""
    height, width = numbers.shape
    least = np.full((count + 1, 2), max(height, width), np.int64)
    most = np.zeros((count + 1, 2), np.int64)
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        band = numbers[top : top + rows]
        # where a run begins or ends in a row is the leftmost or rightmost that it can be
        begins = np.ones(band.shape, bool)
        begins[:, 1:] = band[:, 1:] != band[:, :-1]
        ends = np.ones(band.shape, bool)
        ends[:, :-1] = begins[:, 1:]
        for edge in (begins, ends):
            y, x = np.nonzero(edge & (band != 0))
            region = band[y, x]
            places = np.stack((x, y + top), 1)
            np.minimum.at(least, region, places)
            np.maximum.at(most, region, places)
    return np.concatenate((least, most - least + 1), 1)[1:]


def _means(
    numbers: NDArray[np.int32], confidence: NDArray[np.float32], areas: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean confidence of each region."""
    total = np.zeros(len(areas) + 1)
    rows = max(1, BAND // numbers.shape[1])
    for top in range(0, len(numbers), rows):
        band = numbers[top : top + rows].ravel()
        total += np.bincount(band, confidence[top : top + rows].ravel(), minlength=len(areas) + 1)
    means: NDArray[np.float64] = total[1:] / np.maximum(areas, 1)
    return means
