"""Names on the regions of a label map, as the page puts them there; NumPy and Pillow do it all."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GRID = 128  # cells of the long side; a name needs no finer place
THIN = 3  # cells to the nearest edge; in a thinner region a name would lie over its neighbours
NEARLY = 0.75  # of the thickest place; among such places the middle one looks best
MOST = 40  # names
GAP = 3  # pixels between two names
SMALLEST = 11  # pixels of a name's letters
SHARE = 45  # of the picture's long side, are as many pixels of a letter
PLATE, INK = (18, 21, 27), (255, 255, 255)
SOLID = 0.82  # of the plate under a name
BAR = 4  # pixels of the class's colour before a name

_Cells = NDArray[np.uint16]


class Place(NamedTuple):
    """Where a name belongs: label, and the middle of the name as shares of the picture."""

    label: int
    x: float
    y: float


def write_names(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], colors: NDArray[np.uint8], names: Sequence[str]
) -> None:
    """Writes the classes' names on their regions, where there is room.

    A name of letters that the font lacks is left out, as is one that would lie over that of a roomier region.

    Args:
        image: RGB, uint8 [H, W, 3], of the label map's size; changed in its place.
        labels: label map, 0 is "other".
        colors: uint8 [K, 3].
        names: K of them.
    """
    height, width = labels.shape
    font = _font(max(SMALLEST, round(max(height, width) / SHARE)))
    taken: list[tuple[int, int, int, int]] = []
    for label, x, y in places(labels):
        if not _has_letters(font, names[label - 1]):
            continue
        plate = _plate(names[label - 1], tuple(colors[label - 1].tolist()), font)
        left = min(width - plate.width - GAP, max(GAP, round(x * width - plate.width / 2)))
        top = round(y * height - plate.height / 2)
        box = (left, top, left + plate.width, top + plate.height)
        if left < GAP or top < GAP or box[3] > height - GAP or any(_near(box, other) for other in taken):
            continue
        taken.append(box)
        under = image[top : box[3], left : box[2]]
        mixed = Image.blend(Image.fromarray(under), plate, SOLID)
        letters = np.asarray(plate) != PLATE  # the bar and the letters are opaque
        under[:] = np.where(letters.any(2, keepdims=True), np.asarray(plate), np.asarray(mixed))


def places(labels: NDArray[np.uint16]) -> list[Place]:
    """A thick place in the middle of each connected region that has room, the roomiest first."""
    cells = _coarse(labels)
    depth = _depths(cells)
    rows, columns = cells.shape
    found = []
    for region in _connected(cells):
        row, column = np.divmod(np.array(region), columns)
        room = depth[row, column]
        if room.max() < THIN:
            continue
        away = (row - row.mean()) ** 2 + (column - column.mean()) ** 2
        best = int(np.where(room >= NEARLY * room.max(), away, np.inf).argmin())
        y, x = int(row[best]), int(column[best])
        found.append((int(room[best]), Place(int(cells[y, x]), (x + 0.5) / columns, (y + 0.5) / rows)))
    return [place for _, place in sorted(found, key=lambda one: -one[0])[:MOST]]


def _coarse(labels: NDArray[np.uint16]) -> _Cells:
    scale = max(1.0, max(labels.shape) / GRID)
    rows, columns = (
        ((np.arange(n) + 0.5) * size / n).astype(int)
        for size in labels.shape
        for n in [max(1, int(size / scale))]
    )
    return labels[np.ix_(rows, columns)]


def _depths(cells: _Cells) -> NDArray[np.int64]:
    """Steps from each cell to the nearest one of another label, or to the picture's edge; 0 for "other"."""
    alive = cells != 0
    depth: NDArray[np.int64] = alive.astype(np.int64)
    while alive.any():
        inner = np.zeros_like(alive)
        core = alive[1:-1, 1:-1].copy()
        middle = cells[1:-1, 1:-1]
        for rows, columns in (
            (slice(None, -2), slice(1, -1)),
            (slice(2, None), slice(1, -1)),
            (slice(1, -1), slice(None, -2)),
            (slice(1, -1), slice(2, None)),
        ):
            core &= alive[rows, columns] & (cells[rows, columns] == middle)
        inner[1:-1, 1:-1] = core
        depth += inner
        alive = inner
    return depth


def _connected(cells: _Cells) -> list[list[int]]:
    """The cells of each region, as places in the flat grid."""
    rows, columns = cells.shape
    flat = cells.ravel().tolist()
    seen = [label == 0 for label in flat]
    regions = []
    for start, label in enumerate(flat):
        if seen[start]:
            continue
        seen[start] = True
        region = [start]
        for at in region:  # which grows meanwhile
            column = at % columns
            for near, inside in (
                (at - 1, column > 0),
                (at + 1, column < columns - 1),
                (at - columns, at >= columns),
                (at + columns, at < (rows - 1) * columns),
            ):
                if inside and not seen[near] and flat[near] == label:
                    seen[near] = True
                    region.append(near)
        regions.append(region)
    return regions


def _plate(name: str, color: tuple[int, ...], font: ImageFont.FreeTypeFont) -> Image.Image:
    """A name on a dark ground, with its class's colour before it."""
    pad = max(2, round(font.size / 3))
    above, below = font.getmetrics()
    size = (BAR + 2 * pad + round(font.getlength(name)), above + below + pad // 2)
    plate = Image.new("RGB", size, PLATE)
    draw = ImageDraw.Draw(plate)
    draw.rectangle((0, 0, BAR - 1, size[1]), fill=color)
    draw.text((BAR + pad, pad // 4), name, fill=INK, font=font)
    return plate


def _near(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two boxes are less than `GAP` apart."""
    across = one[0] < other[2] + GAP and one[2] > other[0] - GAP
    return across and one[1] < other[3] + GAP and one[3] > other[1] - GAP


def _has_letters(font: ImageFont.FreeTypeFont, name: str) -> bool:
    missing = bytes(font.getmask("\U0010ffff"))
    return all(bytes(font.getmask(letter)) != missing for letter in name if not letter.isspace())


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow is built with FreeType
    return font
