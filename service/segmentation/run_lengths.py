"""Label map to COCO's run lengths and boxes, of all classes in one pass, band by band.

COCO counts pixels down the columns: gap, run, gap, run, ... of each class. Its text writes a count as the
difference to the one before the last from the fourth on, five bits a letter, the lowest first, as many as a
signed number takes. That is done here for all runs of a band at once: a label map that is noise has as many
runs as pixels, and all of them together would take 35 bytes a pixel. What is held is a band and the texts.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.segmentation.render import Labels

BAND = 1 << 18  # pixels worked on at a time
_LETTER_BITS, _MORE, _FIRST_LETTER = 5, 32, 48
_LONGEST = 7  # letters of a count of 32 bits

Numbers = NDArray[np.int64]


class RunLengths:
    """What is known of the runs of labels 1 to K.

    Args:
        labels: label map, [H, W].
        classes: K.
        texts: whether run lengths are wanted beside the boxes.
    """

    def __init__(self, labels: Labels | NDArray[np.int32], classes: int, *, texts: bool):
        self._size = labels.shape[0], labels.shape[1]
        self._ends = np.zeros(
            classes + 1, np.int64
        )  # of each class's last run, with its gap, length and number
        self._gaps, self._lengths, self._runs = (np.zeros(classes + 1, np.int64) for _ in range(3))
        self._least = np.full((2, classes + 1), max(self._size), np.int64)  # left and top
        self._most = np.full((2, classes + 1), -1, np.int64)  # right and bottom
        self._parts: list[list[bytes]] = [[] for _ in range(classes + 1)]
        for owners, starts, ends in _runs_by_class(labels):
            first, last = np.searchsorted(owners, (1, classes + 1))
            if first < last:
                self._take(owners[first:last], starts[first:last], ends[first:last], texts=texts)

    def rles(self) -> list[dict[str, Any]]:
        """COCO's compressed RLE of every class, `{"size": [H, W], "counts": text}`."""
        height, width = self._size
        rest = height * width - self._ends
        letters, sizes = _written(rest - np.where(self._runs >= 2, self._gaps, 0))
        ends = np.cumsum(sizes)
        found = []
        for at in range(1, len(self._parts)):
            has_rest = rest[at] or not self._runs[at]
            tail = letters[ends[at] - sizes[at] : ends[at]].tobytes() if has_rest else b""
            counts = b"".join((*self._parts[at], tail)).decode("ascii")
            found.append({"size": [height, width], "counts": counts})
        return found

    def boxes(self) -> list[list[int] | None]:
        """Left, top, width and height of every class; None of one without pixels."""
        sides = self._most - self._least + 1
        return [
            [*self._least[:, at].tolist(), *sides[:, at].tolist()] if self._runs[at] else None
            for at in range(1, len(self._runs))
        ]

    def _take(self, owners: NDArray[Any], starts: Numbers, ends: Numbers, *, texts: bool) -> None:
        """Takes in runs of a band, those of a class together."""
        firsts = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1])))
        lasts = np.append(firsts[1:], len(owners)) - 1
        present = owners[firsts]
        self._widen(present, firsts, starts, ends)
        gaps, lengths = starts - _before(ends, firsts, self._ends[present]), ends - starts
        if texts:
            numbers = np.arange(len(owners)) + np.repeat(self._runs[present] - firsts, lasts - firsts + 1)
            counts = np.empty(2 * len(owners), np.int64)
            counts[::2] = gaps - np.where(numbers >= 2, _before(gaps, firsts, self._gaps[present]), 0)
            counts[1::2] = lengths - np.where(
                numbers >= 1, _before(lengths, firsts, self._lengths[present]), 0
            )
            letters, sizes = _written(counts)
            text, stops = letters.tobytes(), np.cumsum(sizes)[2 * lasts + 1].tolist()
            for at, start, stop in zip(present.tolist(), [0, *stops], stops, strict=False):
                self._parts[at].append(text[start:stop])
        self._ends[present], self._gaps[present] = ends[lasts], gaps[lasts]
        self._lengths[present] = lengths[lasts]
        self._runs[present] += lasts - firsts + 1

    def _widen(self, present: NDArray[Any], firsts: Numbers, starts: Numbers, ends: Numbers) -> None:
        height = self._size[0]
        left, right = starts // height, (ends - 1) // height
        whole = left != right  # a run that goes on in the next column has both ends of one
        top = np.where(whole, 0, starts - left * height)
        bottom = np.where(whole, height - 1, ends - 1 - right * height)
        for edges, found in zip(self._least, (left, top), strict=True):
            edges[present] = np.minimum(edges[present], np.minimum.reduceat(found, firsts))
        for edges, found in zip(self._most, (right, bottom), strict=True):
            edges[present] = np.maximum(edges[present], np.maximum.reduceat(found, firsts))


def rles(labels: Labels | NDArray[np.int32], classes: int) -> list[dict[str, Any]]:
    """COCO's compressed RLE of labels 1 to `classes`; see `RunLengths`."""
    return RunLengths(labels, classes, texts=True).rles()


def _runs_by_class(labels: NDArray[Any]) -> Iterator[tuple[NDArray[Any], Numbers, Numbers]]:
    """The runs of each band by label: their labels, where they start, and the place behind their ends."""
    height, width = labels.shape
    columns, rows = max(1, BAND // height), min(height, BAND)
    label, start = labels[0, 0], 0  # of the run that goes on
    for left in range(0, width, columns):
        for upper in range(0, height, rows):
            # OpenCV turns blocks, which takes a third of the time that NumPy takes
            flat = cv2.transpose(labels[upper : upper + rows, left : left + columns]).ravel()
            place = left * height + upper
            changed = np.empty(len(flat), bool)
            changed[0] = flat[0] != label
            np.not_equal(flat[1:], flat[:-1], out=changed[1:])
            changes = np.flatnonzero(changed)
            if not len(changes):
                continue
            borders = np.concatenate(([start], place + changes))
            owners = np.concatenate(([label], flat[changes[:-1]]))
            order = np.argsort(owners, kind="stable")
            yield owners[order], borders[:-1][order], borders[1:][order]
            label, start = flat[changes[-1]], int(borders[-1])
    yield np.array([label]), np.array([start]), np.array([height * width])


def _before(values: Numbers, firsts: Numbers, known: Numbers) -> Numbers:
    """The value before each of its class; of the first ones what is known."""
    before = np.empty_like(values)
    before[1:] = values[:-1]
    before[firsts] = known
    return before


def _written(values: Numbers) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """COCO's letters of some numbers, one behind the other, and how many each has."""
    sizes = np.ones(len(values), np.uint8)
    for letters in range(1, _LONGEST):
        bound = 1 << (_LETTER_BITS * letters - 1)
        longer = (values >= bound) | (values < -bound)
        if not longer.any():
            break
        sizes += longer
    places = np.cumsum(sizes, dtype=np.int64) - sizes
    text = np.empty(int(sizes.sum(dtype=np.int64)), np.uint8)
    for at in range(int(sizes.max(initial=0))):
        here = np.flatnonzero(sizes > at)
        letter = values[here] >> (_LETTER_BITS * at) & 31
        text[places[here] + at] = letter + _MORE * (sizes[here] > at + 1) + _FIRST_LETTER
    return text, sizes
