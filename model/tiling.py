"""A large picture as tiles that overlap: where they lie, and how much each counts where several do.

Along an axis every tile has the same side, so that all of them can share a batch. The output is made in bands
of rows: a band is done as soon as the tiles that begin at its top are predicted, and those that end above it
are wanted no more.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import PictureError

SMALLEST_TILE, LARGEST_TILE = 64, 16_384  # pixels a side
OVERLAP_SHARE = 4  # the overlap is a tile's side divided by this, where it is not given
MOST_TILES = 1_024  # of a picture, where others wait for the device


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How pictures are cut.

    Attributes:
        size: of a tile's sides, pixels of the picture.
        overlap: that neighbours have in common at least, pixels of the picture.

    Raises:
        PictureError: a size out of bounds, or an overlap that leaves nothing of a tile.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not SMALLEST_TILE <= self.size <= LARGEST_TILE:
            raise PictureError(f"tiles have {SMALLEST_TILE} to {LARGEST_TILE} pixels a side, not {self.size}")
        if not 0 <= self.overlap < self.size:
            raise PictureError(
                f"tiles of {self.size} pixels overlap by 0 to {self.size - 1} pixels, not by {self.overlap}"
            )

    @classmethod
    def of(cls, size: int, overlap: int | None = None) -> "Tiling":
        """The same with a quarter of the size as overlap, where none is given."""
        return cls(size=size, overlap=size // OVERLAP_SHARE if overlap is None else overlap)


def tiling_document(text: str) -> dict[str, Any]:
    """What `SIZE` or `SIZE,OVERLAP` stands for, as forms and the command line take it.

    Raises:
        ValueError: it is neither.
    """
    numbers = [part.strip() for part in text.split(",")]
    if len(numbers) > 2 or not all(part.isascii() and part.isdecimal() for part in numbers):
        raise ValueError(
            f"must be SIZE or SIZE,OVERLAP in pixels, such as 1024 or 1024,256, got {text[:40]!r}"
        )
    return dict(zip(("size", "overlap"), map(int, numbers), strict=False))


@dataclass(frozen=True)
class TiledAxis:
    """Tiles along the rows or the columns of a picture.

    Attributes:
        side: of the picture, pixels.
        output: of the output, pixels.
        tiling: how it is cut.
    """

    side: int
    output: int
    tiling: Tiling

    @cached_property
    def size(self) -> int:
        """Of each tile, pixels of the picture."""
        return min(self.tiling.size, self.side)

    @property
    def count(self) -> int:
        """How many tiles there are."""
        left, step = self.side - self.tiling.size, self.tiling.size - self.tiling.overlap
        return 1 + max(0, math.ceil(left / step))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each tile begins, as far apart as each other."""
        last = self.count - 1
        return tuple(round(at * (self.side - self.size) / max(1, last)) for at in range(self.count))

    def centres(self, pixels: slice) -> NDArray[np.float64]:
        """Where the middles of output pixels lie in the picture, pixels from its edge."""
        return (np.arange(pixels.start, pixels.stop) + 0.5) * (self.side / self.output)

    def cut(self, place: int) -> int:
        """The first output pixel whose middle does not lie before a place of the picture."""
        return min(self.output, max(0, math.ceil(place * self.output / self.side - 0.5)))

    def covering(self, pixels: slice) -> list[int]:
        """The tiles that some of the output pixels lie in."""
        first, *_, last = (*self.centres(pixels)[[0, -1]],)
        return [at for at, start in enumerate(self.starts) if start <= last and first < start + self.size]

    def weights(self, tile: int, pixels: slice) -> NDArray[np.float64]:
        """How much a tile counts at output pixels, 0..1; those of all tiles add up to 1.

        A tile counts less towards the edges that it shares with others, by a ramp as long as the overlap.
        """
        centres = self.centres(pixels)
        total = sum(self._ramp(one, centres) for one in self.covering(pixels))
        weights: NDArray[np.float64] = self._ramp(tile, centres) / total
        return weights

    def _ramp(self, tile: int, centres: NDArray[np.float64]) -> NDArray[np.float64]:
        start, end = self.starts[tile], self.starts[tile] + self.size
        before = np.full_like(centres, np.inf) if start == 0 else centres - start
        after = np.full_like(centres, np.inf) if end == self.side else end - centres
        nearest = np.minimum(before, after)
        return np.where(nearest >= 0, np.minimum(1, (nearest + 1e-6) / max(self.tiling.overlap, 1e-6)), 0)


@dataclass(frozen=True)
class TileLayout:
    """The tiles of a picture.

    Attributes:
        picture: its rows and columns.
        output: rows and columns of the output.
        tiling: how it is cut.
    """

    picture: tuple[int, int]
    output: tuple[int, int]
    tiling: Tiling

    @cached_property
    def rows(self) -> TiledAxis:
        """Along the rows."""
        return TiledAxis(self.picture[0], self.output[0], self.tiling)

    @cached_property
    def columns(self) -> TiledAxis:
        """Along the columns."""
        return TiledAxis(self.picture[1], self.output[1], self.tiling)

    @property
    def count(self) -> int:
        """How many tiles there are; quick, however many."""
        return self.rows.count * self.columns.count

    @property
    def tile_size(self) -> tuple[int, int]:
        """Rows and columns of every tile."""
        return self.rows.size, self.columns.size

    def check(self, most: int) -> None:
        """Raises PictureError if there are more tiles than so many."""
        if self.count > most:
            raise PictureError(
                f"tiles of {self.tiling.size} pixels that overlap by {self.tiling.overlap} are {self.count} "
                f"for {self.picture[1]} x {self.picture[0]} pixels, and at most {most} are taken; take "
                "larger ones, or less overlap"
            )

    def band(self, at: int) -> slice:
        """The output's rows that are done with the tiles of row `at`; may be none."""
        starts = self.rows.starts
        last = at + 1 == len(starts)
        return slice(self.rows.cut(starts[at]), self.output[0] if last else self.rows.cut(starts[at + 1]))

    def needed(self, at: int) -> list[int]:
        """The rows of tiles that band `at` is made of; no later band needs earlier ones."""
        band = self.band(at)
        return self.rows.covering(band) if band.start < band.stop else []

    def part(self, row: int, column: int) -> tuple[slice, slice]:
        """A tile's rows and columns of the picture."""
        top, left = self.rows.starts[row], self.columns.starts[column]
        return slice(top, top + self.rows.size), slice(left, left + self.columns.size)
