"""Confusion of classes and what follows from it: intersection over union, its means, accuracies.

The mean is over the classes that the truth of the set holds at least one counted pixel of, as the
field's evaluation does: a class that only the prediction shows costs the classes that it took the pixels
from, and has no share of its own. Counts are integers, so parts of a set add up to the whole exactly.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.layout import IGNORED
from training.errors import TrainingError


class Confusion:
    """How many pixels of each class were taken for each class.

    Args:
        classes: K.
    """

    def __init__(self, classes: int):
        if classes < 1:
            raise TrainingError(f"a confusion needs at least one class, got {classes}")
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)
        """[K, K]: row is the truth, column the prediction."""

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> "Confusion":
        """From counts [K, K], which are copied."""
        made = cls(len(counts))
        made.counts += counts
        return made

    def __len__(self) -> int:
        return len(self.counts)

    def add(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Counts one picture.

        Args:
            truth: class indices, -1 where a pixel does not count.
            prediction: class indices, of the same shape.

        Raises:
            TrainingError: the shapes differ, or a counted pixel lies outside the classes.
        """
        if truth.shape != prediction.shape:
            raise TrainingError(
                f"the truth has the shape {list(truth.shape)}, the prediction {list(prediction.shape)}"
            )
        counted = truth != IGNORED
        wanted, found = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        for what, labels in (("truth", wanted), ("prediction", found)):
            if labels.size and not (labels.min() >= 0 and labels.max() < len(self)):
                raise TrainingError(
                    f"the {what} holds labels {labels.min()} to {labels.max()}, "
                    f"classes go from 0 to {len(self) - 1}"
                )
        pairs = np.bincount(wanted * len(self) + found, minlength=len(self) ** 2)
        self.counts += pairs.reshape(len(self), len(self))

    def merge(self, other: "Confusion") -> None:
        """Adds the counts of another part of the set.

        Raises:
            TrainingError: it has another number of classes.
        """
        if len(other) != len(self):
            raise TrainingError(f"{len(other)} classes cannot be merged with {len(self)}")
        self.counts += other.counts

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Counted pixels of each class in the truth, [K]."""
        sums: NDArray[np.int64] = self.counts.sum(1)
        return sums

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes the truth holds, [K]."""
        return self.pixels > 0

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class in 0..1, [K]; NaN where the truth does not hold it."""
        hits = self.counts.diagonal()
        union = self.pixels + self.counts.sum(0) - hits
        return np.where(self.present, hits / np.maximum(union, 1), np.nan)

    def mean_iou(self, chosen: Sequence[bool] | NDArray[np.bool_] | None = None) -> float | None:
        """Mean over the classes that the truth holds, in percent; None where there is none.

        Args:
            chosen: only these of the K classes. All others still take part as what they were taken for.
        """
        counted = self.present if chosen is None else self.present & np.asarray(chosen, bool)
        return 100 * float(self.iou()[counted].mean()) if counted.any() else None

    def mean_accuracy(self) -> float | None:
        """Mean over the classes that the truth holds of the share of pixels that got their class, percent."""
        here = self.present
        recall = self.counts.diagonal()[here] / self.pixels[here]
        return 100 * float(recall.mean()) if here.any() else None

    def frequency_weighted_iou(self) -> float | None:
        """Intersection over union, each class weighing as much as it has pixels in the truth, percent."""
        here = self.present
        weights = self.pixels[here] / max(1, int(self.pixels.sum()))
        return 100 * float((weights * self.iou()[here]).sum()) if here.any() else None

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """Pairs of different classes, truth and prediction, with the most pixels, and their pixels."""
        wrong = self.counts - np.diag(self.counts.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [divmod(int(place), len(self)) for place in order]
        return [(truth, found, int(wrong[truth, found])) for truth, found in pairs if wrong[truth, found]]

    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels that got their class, in percent; None where there is none."""
        total = int(self.counts.sum())
        return 100 * int(self.counts.trace()) / total if total else None
