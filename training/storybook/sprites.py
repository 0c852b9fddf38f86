"""Tools to draw a thing as a sprite: points in units of its height, a pen, a few colours.

Shapes are float arrays [n, 2] of (x, y), y downwards, one unit = the height of the whole drawing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Palette = tuple[Colour, Colour, Colour]

RED = (204, 60, 52)
ORANGE = (230, 130, 48)
YELLOW = (242, 198, 70)
GREEN = (98, 154, 76)
TEAL = (56, 148, 142)
BLUE = (64, 112, 186)
SKY = (128, 186, 222)
PURPLE = (130, 90, 162)
PINK = (232, 140, 162)
BROWN = (140, 96, 64)
CREAM = (248, 236, 208)
WOOD = (168, 116, 72)
INKS: tuple[Colour, ...] = ((62, 42, 38), (40, 42, 66), (44, 54, 44))

OUTLINE = 0.024  # width of the ink around shapes: 1.5 pixels of a drawing 64 pixels high
SUPERSAMPLING = 2
MARGIN = 0.1  # room around the unit box for outlines and for shapes that reach a little beyond it
SHIFT = 4  # binary places that OpenCV gets of each coordinate
CONTRAST = 40  # of 255: least difference in brightness between a pattern and its ground
PALE = 165  # of 255: brightness above which there is no room for a paler pattern
LIGHT = 0.13  # how much brighter than the mean the upper left is, and how much darker the lower right


@dataclass(frozen=True)
class Sprite:
    """A drawing to paste: rgb uint8 [h, w, 3]; mask uint8 [h, w], 255 inside, antialiased at its edge."""

    rgb: Picture
    mask: Picture


def shade(colour: Colour, amount: float) -> Colour:
    """`colour` mixed with white (amount 0 to 1) or black (0 to -1)."""
    goal = 255 if amount > 0 else 0
    red, green, blue = (round(value + (goal - value) * abs(amount)) for value in colour)
    return red, green, blue


def jitter(colour: Colour, rng: np.random.Generator, spread: int = 24) -> Colour:
    """`colour` with each channel moved by at most `spread`."""
    moved = np.clip(np.array(colour) + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(moved[0]), int(moved[1]), int(moved[2])


def apart(colour: Colour, ground: Colour) -> Colour:
    """`colour`, or where it could hardly be seen on `ground` a paler one (a darker one on a pale ground)."""
    brightness = sum(ground) / 3
    if abs(sum(colour) / 3 - brightness) >= CONTRAST:
        return colour
    return shade(colour, 0.62 if brightness < PALE else -0.4)


def points(*pairs: tuple[float, float]) -> Points:
    """A shape from its corners."""
    return np.array(pairs, dtype=np.float64)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """A rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def disc(
    x: float,
    y: float,
    rx: float,
    ry: float | None = None,
    start: float = 0,
    end: float = 360,
    corners: int = 32,
) -> Points:
    """An ellipse, or its arc from `start` to `end` (degrees, clockwise from the right)."""
    angles = np.linspace(start * np.pi / 180, end * np.pi / 180, corners)
    return np.stack([x + rx * np.cos(angles), y + (rx if ry is None else ry) * np.sin(angles)], axis=1)


def arcs(centres: Points, radius: float, start: float, end: float, corners: int = 8) -> Points:
    """Arcs of circles around `centres` [k, 2], as one array [k, corners, 2]."""
    return centres[:, None] + disc(0, 0, radius, None, start, end, corners)


def lines(starts: Points, ends: Points) -> Points:
    """Straight lines between `starts` and `ends` ([k, 2] each, or one point for all), as [k, 2, 2]."""
    return np.stack(np.broadcast_arrays(starts, ends), axis=1)


def smooth(corners: Points, closed: bool = True, steps: int = 7) -> Points:
    """The Catmull-Rom curve through `corners` [n, 2], `steps` points for each of its pieces."""
    if closed:
        ends = np.concatenate([corners[-1:], corners, corners[:2]])
    else:
        ends = np.concatenate([corners[:1], corners, corners[-1:]])
    before, here, there, after = ends[:-3, None], ends[1:-2, None], ends[2:-1, None], ends[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    linear = there - before
    square = 2 * before - 5 * here + 4 * there - after
    cube = 3 * (here - there) + after - before
    curve = (here + 0.5 * t * (linear + t * (square + t * cube))).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, corners[-1:]])


def star(x: float, y: float, radius: float, tips: int = 5, waist: float = 0.45) -> Points:
    """A star, one tip upwards; `waist` is the inner radius over the outer."""
    angles = np.arange(2 * tips) * np.pi / tips - np.pi / 2
    radii = np.where(np.arange(2 * tips) % 2 == 0, radius, radius * waist)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


def moved(shapes: Points, x: float, y: float) -> Points:
    """`shapes` shifted to the right by `x` and down by `y`."""
    shifted: Points = shapes + np.array((x, y))
    return shifted


def mirrored(shape: Points, x: float) -> Points:
    """`shape` reflected in the vertical line at `x`."""
    return moved(shape * np.array((-1, 1)), 2 * x, 0)


class Pen:
    """Draws shapes of unit coordinates on a canvas larger than the sprite; `sprite` scales it down."""

    def __init__(self, height: int, width: float, stretch: float, ink: Colour) -> None:
        """`height`: pixels of the sprite; `width`: right end of the unit box; `stretch`: factor on all x."""
        self.height = height
        self.ink = ink
        self._scale = np.array([height * SUPERSAMPLING * stretch, height * SUPERSAMPLING])
        columns, rows = np.ceil(self._scale * (width + 2 * MARGIN, 1 + 2 * MARGIN)).astype(int)
        # Shapes are drawn with hard edges: scaling the canvas down smooths them for half of LINE_AA's time.
        # Ink everywhere, so that edges fade into the outline and not into a foreign colour; the
        # fourth channel is the mask.
        self._canvas: Picture = np.zeros((rows, columns, 4), np.uint8)
        cv2.rectangle(self._canvas, (0, 0), (int(columns), int(rows)), (*ink, 0), cv2.FILLED)

    def _fixed(self, shapes: Points) -> NDArray[np.int32]:
        fixed: NDArray[np.int32] = np.rint((shapes + MARGIN) * self._scale * (1 << SHIFT)).astype(np.int32)
        return fixed

    def fill(self, shape: Points, colour: Colour, outline: float = OUTLINE) -> None:
        """Fills a shape and, unless `outline` is 0, draws its edge in ink that wide."""
        cv2.fillPoly(self._canvas, [self._fixed(shape)], (*colour, 255), cv2.LINE_8, SHIFT)
        if outline > 0:
            self.stroke(shape, self.ink, outline, closed=True)

    def stroke(self, shapes: Points, colour: Colour, width: float, closed: bool = False) -> None:
        """Draws a line along the points [n, 2], or one along each of [k, n, 2]."""
        corners = self._fixed(shapes)
        lines = [corners] if shapes.ndim == 2 else list(corners)
        pixels = max(1, round(width * self.height * SUPERSAMPLING))
        cv2.polylines(self._canvas, lines, closed, (*colour, 255), pixels, cv2.LINE_8, SHIFT)

    @contextmanager
    def inside(self, *shapes: Points) -> Iterator[None]:
        """What is drawn meanwhile shows inside the shapes only; their outlines are drawn after it."""
        before = self._canvas.copy()
        window = np.zeros(before.shape[:2], np.uint8)
        for shape in shapes:
            cv2.fillPoly(window, [self._fixed(shape)], (255,), cv2.LINE_8, SHIFT)
        yield
        cv2.copyTo(self._canvas, window, before)
        self._canvas = before
        for shape in shapes:
            self.stroke(shape, self.ink, OUTLINE, closed=True)

    def sprite(self, mirror: bool) -> Sprite:
        """The drawing cut to its own box and scaled to `height` rows, lit from the upper left."""
        left, top, columns, rows = cv2.boundingRect((self._canvas[..., 3] >= 128).astype(np.uint8))
        size = (max(1, round(self.height * columns / rows)), self.height)
        cut = self._canvas[top : top + rows, left : left + columns]
        small = cv2.resize(cut, size, interpolation=cv2.INTER_AREA)
        if mirror:
            small = small[:, ::-1]
        down = np.linspace(LIGHT, -LIGHT, size[1], dtype=np.float32)[:, None, None]
        across = np.linspace(LIGHT, -LIGHT, size[0], dtype=np.float32)[None, :, None]
        lit = np.clip(small[..., :3] * (1 + (down + across) / 2), 0, 255).astype(np.uint8)
        return Sprite(rgb=lit, mask=np.ascontiguousarray(small[..., 3], dtype=np.uint8))


@dataclass(frozen=True)
class Thing:
    """`draw` fills a unit box `width` wide; every palette is what its three colours are, in that order."""

    draw: Callable[[Pen, np.random.Generator, Colour, Colour, Colour], None]
    width: float
    palettes: tuple[Palette, ...]
