"""Regions of an answer: pixels of one class that touch along an edge."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ebseg_client.errors import InputError
from ebseg_client.fields import Document
from ebseg_client.labels import labels_of

Ring = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """Which regions an answer has.

    Attributes:
        min_area: pixels; smaller regions are left out.
        max_count: the largest so many are answered.
        shape: how the pixels of each are written: "rle" for `mask`, "polygon", or "none".
    """

    min_area: int = 1
    max_count: int = 1000
    shape: Literal["rle", "polygon", "none"] = "rle"


@dataclass(frozen=True, slots=True)
class Polygon:
    """One region: rings of (x, y) along the pixels' edges, filled by the even-odd rule."""

    exterior: Ring
    holes: tuple[Ring, ...]


@dataclass(frozen=True, slots=True)
class FoundRegion:
    """One region.

    Attributes:
        id: from 1 on; by class, the largest first.
        label, name: of its class.
        bbox: left, top, width and height, pixels.
        area: pixels.
        score: mean confidence over them, 0..1.
        polygon: its outline, if asked for.
    """

    id: int
    label: int
    name: str
    bbox: tuple[int, ...]
    area: int
    score: float
    polygon: Polygon | None
    _rle: str | None = field(repr=False)
    _size: tuple[int, int] = field(repr=False)

    def mask(self) -> NDArray[np.bool_]:
        """Its pixels, bool [H, W].

        Raises:
            InputError: the request asked for another shape than "rle".
            AnswerError: what came is damaged.
        """
        if self._rle is None:
            raise InputError('the regions have no run lengths: ask for RegionOptions(shape="rle")')
        return np.asarray(labels_of((self._rle,), *self._size) == 1)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Regions that were too small, or beyond the largest `max_count`: how many, and their pixels together."""

    count: int
    area: int


@dataclass(frozen=True, slots=True)
class Panoptic:
    """A picture of a data set in COCO's panoptic format: the RGB PNG of segment ids, and the document."""

    png: bytes = field(repr=False)
    document: Document
