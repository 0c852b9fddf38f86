"""How much of a label map each class has, and where: at once, or band by band."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.segmentation.encode import statistics
from service.segmentation.render import Labels
from service.segmentation.run_lengths import RunLengths

Box = list[int] | None  # left, top, width and height


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a label map.

    Attributes:
        area: pixels of each label, [classes + 1]; the first is "other".
        confidence: its mean over them, 0 where there are none.
        boxes: of each class.
        rles: run lengths of each class; None if they were not wanted.
    """

    area: NDArray[np.int64]
    confidence: NDArray[np.float64]
    boxes: list[Box]
    rles: list[dict[str, Any]] | None

    @classmethod
    def of(cls, labels: Labels, confidence: NDArray[np.float32], classes: int, *, rles: bool) -> "Counts":
        """Of a whole label map; with its run lengths if they are wanted."""
        area, mean = statistics(labels, confidence, classes)
        runs = RunLengths(labels, classes, texts=rles)
        return cls(area, mean, runs.boxes(), runs.rles() if rles else None)


class BandCounts:
    """Counts bands of a label map that is never there as a whole.

    Args:
        classes: that labels stand for.
    """

    def __init__(self, classes: int):
        self._area = np.zeros(classes + 1, np.int64)
        self._total = np.zeros(classes + 1)
        self._edges = np.array([[np.iinfo(np.int64).max] * 2 + [0] * 2] * classes)  # left, top, right, bottom

    def add(self, top: int, labels: Labels, confidence: NDArray[np.float32]) -> None:
        """Takes in the band from row `top` on."""
        own = Counts.of(labels, confidence, len(self._edges), rles=False)
        self._area += own.area
        self._total += own.confidence * own.area
        for edges, box in zip(self._edges, own.boxes, strict=True):
            if box is not None:
                left, upper, width, height = box
                edges[:2] = np.minimum(edges[:2], (left, top + upper))
                edges[2:] = np.maximum(edges[2:], (left + width, top + upper + height))

    def counts(self) -> Counts:
        """Of all bands."""
        found: list[Box] = [
            [int(left), int(top), int(right - left), int(bottom - top)] if area else None
            for (left, top, right, bottom), area in zip(self._edges, self._area[1:], strict=True)
        ]
        return Counts(self._area, self._total / np.maximum(self._area, 1), found, None)
