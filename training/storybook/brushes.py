"""Brushes that textures are drawn with: float32 tone maps [n, n] in 0..1, sizes in pixels.

Sizes are meant for a picture of 192 pixels on the short side.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Tone = NDArray[np.float32]


def noise(rng: Generator, n: int, period: float, stretch: float = 1.0) -> Tone:
    """Smooth noise whose bumps are `period` wide and `stretch` times as high."""
    columns, rows = (max(2, round(n / size)) for size in (period, period * stretch))
    grid = rng.random((rows, columns), dtype=np.float32)
    smooth = cv2.resize(grid, (n, n), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 1)


def rough(rng: Generator, n: int, period: float, stretch: float = 1.0) -> Tone:
    """Noise of three octaves."""
    octaves = [noise(rng, n, max(2, period / 2**i), stretch) * 0.5**i for i in range(3)]
    total: Tone = sum(octaves, np.zeros((n, n), np.float32)) / np.float32(1.75)
    return total


def grid(n: int) -> tuple[Tone, Tone]:
    """Row and column of each pixel."""
    line = np.arange(n, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def places(rng: Generator, n: int, period: float, jitter: float = 0.35) -> Iterator[tuple[float, float]]:
    """Points (x, y) of a jittered staggered grid that passes the edges, from top to bottom."""
    for row in range(-1, int(n / period) + 2):
        for column in range(-1, int(n / period) + 2):
            dx, dy = rng.uniform(-jitter, jitter, 2) * period
            yield (column + 0.5 * (row % 2)) * period + dx, row * period + dy


def cells(rng: Generator, n: int, period: float, jitter: float) -> tuple[Tone, Tone, NDArray[np.int32]]:
    """Stones around scattered points: distance to the own point and to the stone's edge, and whose it is."""
    points = np.array(list(places(rng, n, period, jitter)), np.float32)
    seeds = np.full((n, n), 255, np.uint8)
    inside = np.rint(points).astype(int)
    inside = inside[((inside >= 0) & (inside < n)).all(1)]
    seeds[inside[:, 1], inside[:, 0]] = 0
    nearest, owner = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # an edge is where another owner is met
    kernel = np.ones((3, 3), np.uint8)
    labels = owner.astype(np.float32)
    edge = (cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)).astype(np.uint8)
    to_edge = cv2.distanceTransform(1 - edge, cv2.DIST_L2, cv2.DIST_MASK_5)
    return nearest.astype(np.float32), to_edge.astype(np.float32), owner.astype(np.int32)


def shades(rng: Generator, owner: NDArray[np.int32], low: float, high: float) -> Tone:
    """One tone for each cell."""
    tones = rng.uniform(low, high, int(owner.max()) + 1).astype(np.float32)
    found: Tone = tones[owner]
    return found


def step(values: Tone, edge: float, soft: float = 1.0) -> Tone:
    """0 below `edge`, 1 above, with a ramp of `soft` between."""
    ramp: Tone = np.clip((values - edge) / soft + 0.5, 0, 1)
    return ramp


def strokes(
    canvas: Tone,
    rng: Generator,
    count: int,
    length: tuple[float, float],
    angle: tuple[float, float],
    thickness: int,
    tones: tuple[float, float],
) -> Tone:
    """Straight strokes, from any place, with an angle from upright in radians."""
    n = len(canvas)
    starts = rng.uniform(-20, n + 20, (count, 2))
    leans = rng.uniform(*angle, count)
    lengths = rng.uniform(*length, count)
    shade = rng.uniform(*tones, count)
    ends = starts + np.stack([np.sin(leans), -np.cos(leans)], 1) * lengths[:, None]
    for start, end, tone in zip(np.rint(starts).astype(int), np.rint(ends).astype(int), shade, strict=True):
        cv2.line(canvas, start.tolist(), end.tolist(), float(tone), thickness, cv2.LINE_AA)
    return canvas


def polygon(canvas: Tone, points: NDArray[np.floating], tone: float) -> None:
    """A filled polygon; points (x, y), kept to a sixteenth of a pixel."""
    fixed = np.rint(points * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], float(tone), cv2.LINE_8, shift=4)


def disc(canvas: Tone, x: float, y: float, radius: float, tone: float) -> None:
    """A filled circle."""
    centre = (round(x * 16), round(y * 16))
    cv2.circle(canvas, centre, max(1, round(radius * 16)), float(tone), -1, cv2.LINE_8, shift=4)
