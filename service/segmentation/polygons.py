"""Label map to polygons, all classes in one pass over the picture.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import invalid
from service.segmentation import render

Labels = render.Labels | NDArray[np.int32]
Ring = NDArray[np.int32]
Indices = NDArray[np.int64]
CORNER_BLOCK = 1 << 20  # corners looked at at a time
# Corners of all outlines, at the most: some 300 bytes each while they are found. A photograph's label map has
# one for a hundred pixels, noise has more of them than pixels.
LEAST_CORNERS = 500_000
CORNER_PIXELS = 12  # pixels of a larger label map for each corner that it may have
_UP, _DOWN, _LEFT, _RIGHT = range(4)  # ways along an outline, with the class to the left


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of one class that touch; rings are corners [N, 2] of which the last is not the first again."""

    exterior: Ring
    holes: list[Ring]


@dataclass(frozen=True, slots=True)
class _Turns:
    """Corners [N] at which an outline turns; one where two outlines meet, or one meets itself, comes twice.

    Attributes:
        x, y: where they are.
        by_row, by_column: the same as one number, in the order of reading and in that of columns.
        label: whose outline it is.
        coming, going: the ways to it and from it.
    """

    x: Indices
    y: Indices
    by_row: Indices
    by_column: Indices
    label: Labels
    coming: NDArray[np.uint8]
    going: NDArray[np.uint8]


def polygons(labels: Labels, classes: int, check: Callable[[], None] = lambda: None) -> list[list[Region]]:
    """Outlines of each class's regions along the edges of its pixels, with their holes.

    Corners are at whole numbers, [x, y] from the picture's upper left corner, so a lone pixel is a square of
    area 1, and the rings, filled by the even-odd rule, give the mask back exactly. Pixels of a class that
    touch at a corner belong to one region.

    The corners of all classes are found at once. Along a line of the grid the straight stretches of one way
    do not overlap, whatever their classes: the k-th beginning of one and the k-th end belong together, which
    tells each corner the next one of its ring.

    Args:
        labels: label map; none is above `classes`.
        classes: how many there are.
        check: called now and then; may raise.

    Returns:
        The regions of each class, the lowest first.

    Raises:
        InvalidRequestError: more corners than there may be.
    """
    padded: Any = np.pad(labels, 1)  # of the same type
    turns = _turns(padded, check)
    order, starts = _rings(turns, _following(turns), check)
    return _regions(padded, turns, order, starts, classes, check)


def _turns(padded: Labels, check: Callable[[], None]) -> _Turns:
    height, width = padded.shape[0] - 1, padded.shape[1] - 1  # in corners
    rows = max(1, CORNER_BLOCK // width)
    blocks: list[Indices] = []
    most, found = max(LEAST_CORNERS, padded.size // CORNER_PIXELS), 0
    for top in range(0, height, rows):
        check()
        block = padded[top : min(top + rows, height) + 1]
        beside, below = block[:, 1:] == block[:, :-1], block[1:] == block[:-1]
        # where both pairs are equal no outline passes, or one that goes straight on
        turn = ~((beside[1:] & beside[:-1]) | (below[:, 1:] & below[:, :-1]))
        blocks.append(np.flatnonzero(turn) + top * width)
        found += len(blocks[-1])
        if found > most:
            raise invalid(
                "outputs",
                f"outlines of this label map have more than {most} corners, too many for polygons; take rle, "
                "set output_size to less, or leave out small regions",
            )
    at = np.concatenate(blocks)
    y, x = np.divmod(at, width)
    # the four pixels around: a b over c d
    a, b, c, d = padded[y, x], padded[y, x + 1], padded[y + 1, x], padded[y + 1, x + 1]
    ab, cd, ac, bd, ad, bc = a == b, c == d, a == c, b == d, a == d, b == c
    kinds = (
        (_LEFT, _DOWN, d, ~(ad | bd | cd)),
        (_RIGHT, _UP, a, ~(ab | ac | ad)),
        (_DOWN, _RIGHT, b, ~(ab | bd | bc)),
        (_UP, _LEFT, c, ~(ac | bc | cd)),
        (_LEFT, _UP, a, ad & ~bd),
        (_RIGHT, _DOWN, a, ad & ~cd),
        (_DOWN, _LEFT, b, bc & ~ab),
        (_UP, _RIGHT, b, bc & ~bd),
    )
    chosen = [np.flatnonzero(there & (label != 0)) for _, _, label, there in kinds]
    counts = [len(one) for one in chosen]
    where = np.concatenate(chosen)
    return _Turns(
        x=x[where],
        y=y[where],
        by_row=at[where],
        by_column=x[where] * height + y[where],
        label=np.concatenate([kind[2][one] for kind, one in zip(kinds, chosen, strict=True)]),
        coming=np.repeat(np.array([kind[0] for kind in kinds], np.uint8), counts),
        going=np.repeat(np.array([kind[1] for kind in kinds], np.uint8), counts),
    )


def _following(turns: _Turns) -> Indices:
    """The next corner of each one's ring."""
    following = np.empty(len(turns.x), np.int64)
    for way in (_UP, _DOWN, _LEFT, _RIGHT):
        place = turns.by_row if way in (_LEFT, _RIGHT) else turns.by_column
        following[_sorted(turns.going == way, place)] = _sorted(turns.coming == way, place)
    return following


def _rings(turns: _Turns, following: Indices, check: Callable[[], None]) -> tuple[Indices, Indices]:
    """All corners, ring after ring, and where in that order each ring starts.

    Rings are in the order of reading by their first corners, which is the leftmost of the uppermost ones.
    """
    first = (turns.coming == _LEFT) & (turns.going == _DOWN)  # of an exterior
    first |= (turns.coming == _UP) & (turns.going == _RIGHT)  # of a hole
    order: list[int] = []
    starts: list[int] = []
    unseen = bytearray(b"\1") * len(following)
    after = following.tolist()
    for at in _sorted(first, turns.by_row).tolist():
        if not unseen[at]:
            continue
        check()
        starts.append(len(order))
        while unseen[at]:
            unseen[at] = 0
            order.append(at)
            at = after[at]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _regions(
    padded: Labels,
    turns: _Turns,
    order: Indices,
    starts: Indices,
    classes: int,
    check: Callable[[], None],
) -> list[list[Region]]:
    """Rings sorted by class, each hole in its region."""
    of_class: list[list[Region]] = [[] for _ in range(classes)]
    regions: list[Region] = []  # of each ring
    corners = np.stack((turns.x[order], turns.y[order]), 1).astype(np.int32)
    ring_of = np.empty(len(order), np.int64)
    ring_of[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    lefts = _sorted(turns.going == _DOWN, turns.by_column)  # left sides, by where they begin
    begins = turns.by_column[lefts]
    height = padded.shape[0] - 1
    label_of, way_of = turns.label[order[starts]].tolist(), turns.going[order[starts]].tolist()
    bounds = [*starts.tolist(), len(order)]
    for (begin, end), label, way in zip(pairwise(bounds), label_of, way_of, strict=True):
        check()
        ring = corners[begin:end]
        if way == _DOWN:
            region = Region(ring, [])
            of_class[label - 1].append(region)
        else:
            # The pixels left of a hole's first corner belong to its region, up to the region's left side
            # there, whose ring begins further up, or further left.
            x, y = ring[0]
            left = int(np.flatnonzero(padded[y + 1, : x + 1] != label)[-1])
            side = lefts[np.searchsorted(begins, left * height + int(y), side="right") - 1]
            region = regions[ring_of[side]]
            region.holes.append(ring)
        regions.append(region)
    for mine in of_class:
        mine.reverse()
        for region in mine:
            region.holes.reverse()
    return of_class


def _sorted(chosen: NDArray[np.bool_], place: Indices) -> Indices:
    """Which are chosen, by their place."""
    which = np.flatnonzero(chosen)
    return which[np.argsort(place[which], kind="stable")]
