"""What is counted of a data set: pixels by truth and prediction, outlines, and how good each picture is.

All of it are whole numbers, so that parts of a set add up to the whole exactly.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.layout import IGNORED
from training.evaluation.metrics import Confusion

BAND = 0.02  # of a picture's diagonal: how wide a band along an outline counts (Cheng et al. 2021, section 4)
_OUTSIDE = -2  # no label; what lies around a picture
_LARGE = np.iinfo(np.int16).max
_MILLION = 1_000_000


class Tally:
    """Counts of a set of pictures.

    Attributes:
        confusion: of K classes.
        bands: int64 [2, K]: pixels that are of a class and near its outline in truth and prediction both, and
            in one of the two at least; their ratio is the boundary IoU.

    Args:
        classes: K.
        pictures: of the set, counted here or elsewhere.
    """

    def __init__(self, classes: int, pictures: int):
        self.confusion = Confusion(classes)
        self.bands: NDArray[np.int64] = np.zeros((2, classes), np.int64)
        self._mious: NDArray[np.int64] = np.zeros(pictures, np.int64)  # 1 + millionths; 0: nothing to score

    def add(self, index: int, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Counts a picture, see `Confusion.add`.

        Args:
            index: its place in the set.
        """
        one = Confusion(len(self.confusion))
        one.add(truth, prediction)
        self.confusion.merge(one)
        self.bands += band_counts(truth, prediction, len(one))
        miou = one.mean_iou()
        if miou is not None:
            self._mious[index] = 1 + round(miou / 100 * _MILLION)

    def vector(self) -> NDArray[np.int64]:
        """All counts in a row; those of several parts of a set may be added up."""
        return np.concatenate([self.confusion.counts.ravel(), self.bands.ravel(), self._mious])

    @classmethod
    def of(cls, vector: NDArray[np.int64], classes: int) -> "Tally":
        """The opposite of `vector`."""
        made = cls(classes, len(vector) - classes**2 - 2 * classes)
        counts, bands, mious = np.split(vector, [classes**2, classes**2 + 2 * classes])
        made.confusion.counts += counts.reshape(classes, classes)
        made.bands += bands.reshape(2, classes)
        made._mious += mious
        return made

    def boundary_iou(self) -> NDArray[np.float64]:
        """Boundary IoU of each class in 0..1, [K]; NaN where the truth does not hold it."""
        return np.where(self.confusion.present, self.bands[0] / np.maximum(self.bands[1], 1), np.nan)

    def mean_boundary_iou(self) -> float | None:
        """Mean over the classes that the truth holds, percent; None where there is none."""
        here = self.confusion.present
        return 100 * float(self.boundary_iou()[here].mean()) if here.any() else None

    def worst(self, count: int) -> list[tuple[int, float]]:
        """Places of the pictures with the lowest mean IoU over their own classes, and that, percent."""
        scored = np.flatnonzero(self._mious)
        order = scored[np.argsort(self._mious[scored], kind="stable")][:count]
        return [(int(index), 100 * (int(self._mious[index]) - 1) / _MILLION) for index in order]


def band_counts(
    truth: NDArray[np.integer], prediction: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """The counts of `Tally.bands` for one picture.

    As Cheng et al. have it a picture's border is an outline; that of pixels that do not count is none.
    """
    wanted = truth.astype(np.int16)
    found = np.where(truth == IGNORED, IGNORED, prediction).astype(np.int16)
    distance = max(1, round(BAND * float(np.hypot(*truth.shape))))
    near_wanted, near_found = near_outline(wanted, distance), near_outline(found, distance)
    shared = np.bincount(wanted[near_wanted & near_found & (wanted == found)], minlength=classes)
    either = np.bincount(wanted[near_wanted], minlength=classes)
    either += np.bincount(found[near_found], minlength=classes)
    return np.stack([shared, either - shared])


def near_outline(labels: NDArray[np.int16], distance: int) -> NDArray[np.bool_]:
    """Which counted pixels have another class, or the picture's border, within a distance.

    Args:
        labels: [H, W], -1 where a pixel does not count.
        distance: pixels, along rows or columns, whichever is more.
    """
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    above = np.where(labels == IGNORED, _LARGE, labels).astype(np.int16)
    least = cv2.erode(above, window, borderType=cv2.BORDER_CONSTANT, borderValue=float(_OUTSIDE))
    most = cv2.dilate(labels, window, borderType=cv2.BORDER_CONSTANT, borderValue=float(_OUTSIDE))
    return np.asarray((labels != IGNORED) & ((least != labels) | (most != labels)))
