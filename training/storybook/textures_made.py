"""Textures of what people make: walls, roofs, floors and cloth. Tones in 0..1, as in `textures_nature`."""

import cv2
import numpy as np
from numpy.random import Generator

from training.storybook.brushes import Tone, cells, disc, grid, noise, polygon, rough, shades, step


def brick_wall(rng: Generator, n: int) -> Tone:
    """Level courses, each set off by half a brick."""
    y, x = grid(n)
    high, wide = rng.uniform(10, 12), rng.uniform(24, 29)
    course = np.floor(y / high)
    shifted = x + (course % 2) * wide / 2
    brick = (course * 97 + np.floor(shifted / wide)).astype(np.int32)
    joint = np.minimum(to_line(y, high), to_line(shifted, wide))
    return np.where(joint < 1.1, 1.0, shades(rng, brick, 0.15, 0.6) + 0.1 * rough(rng, n, 6)).astype(
        np.float32
    )


def stone_wall(rng: Generator, n: int) -> Tone:
    """Large flat stones of many corners with thick mortar."""
    _, to_edge, owner = cells(rng, n, rng.uniform(27, 32), 0.42)
    stone = shades(rng, owner, 0.2, 0.7) + 0.15 * rough(rng, n, 8)
    return stone + (1 - stone) * step(-to_edge, -1.8, 1.2)


def planks(rng: Generator, n: int) -> Tone:
    """Upright boards with grain and nails."""
    y, x = grid(n)
    wide = rng.uniform(19, 24)
    board = np.floor(x / wide).astype(np.int32)
    ends = (y + shades(rng, board, 0, 400)) % 120
    grain = 0.5 + 0.5 * np.sin((x + 5 * noise(rng, n, 20, 4)) * 1.6)
    tone = shades(rng, board, 0.5, 0.85) - 0.22 * grain
    tone = tone * step(to_line(x, wide), 1.2, 1.2) * step(ends, 1.6, 1.2)
    nails = np.hypot(np.abs(x % wide - wide / 2) - wide * 0.28, np.abs(ends - 60) - 53)
    nailed: Tone = tone * step(nails, 1.7, 1.0)
    return nailed


def lattice(rng: Generator, n: int) -> Tone:
    """Broad slats crossing aslant, with dark holes."""
    y, x = grid(n)
    period, half = rng.uniform(19, 23), rng.uniform(3.4, 4.4)
    tone = np.full((n, n), 0.05, np.float32)
    for sign, level in ((1, 0.65), (-1, 1.0)):
        across = np.abs((x + sign * y) * 0.7071 % period - period / 2)
        tone = np.where(across < half, level - 0.35 * (across > half - 1.3), tone)
    return tone.astype(np.float32)


def wallpaper(rng: Generator, n: int) -> Tone:
    """A drop-shaped ornament, repeated in a half-drop."""
    y, x = grid(n)
    period = rng.uniform(24, 28)
    column = np.floor(x / period)
    u = (x % period) / period - 0.5
    v = ((y + (column % 2) * 0.6 * period) % (1.2 * period)) / period - 0.6
    drop = np.hypot(u / np.clip(0.34 * (0.62 + v), 0.03, 1), np.maximum(v - 0.05, 0) / 0.28)
    tail = np.abs(np.abs(u) - 0.28 - 0.12 * np.cos(9 * v)) + 0.25 * np.abs(v)
    heart = np.hypot(u, v - 0.1)
    tone = np.maximum(step(-drop, -1.0, 0.25), step(-tail, -0.09, 0.05))
    return (0.2 + 0.75 * tone * step(heart, 0.11, 0.05)).astype(np.float32)


def carpet(rng: Generator, n: int) -> Tone:
    """Woven bands of zigzags and rows of diamonds by turns."""
    y, x = grid(n)
    period = rng.uniform(15, 18)
    zigzag = np.abs(x % period - period / 2)
    band = np.floor((y % 52) / 26)
    chevrons = step(np.sin((y + zigzag) * (2 * np.pi / 8.5)), 0, 0.6)
    diamonds = step(-(zigzag / (period / 2) + np.abs(y % 26 - 13) / 11), -0.75, 0.2)
    borders = step(-np.abs(y % 26 - 0.5), -1.5, 1.0)
    tone = np.where(band == 0, 0.15 + 0.8 * chevrons, 0.3 + 0.6 * diamonds)
    woven: Tone = (np.maximum(tone, borders) - 0.12 * (x % 3 < 1)).astype(np.float32)
    return woven


def floor_tiles(rng: Generator, n: int) -> Tone:
    """Square tiles whose quarter circles meet to rings."""
    y, x = grid(n)
    period = rng.uniform(27, 32)
    u, v = to_line(x, period), to_line(y, period)
    corner = np.hypot(u, v)
    rings = step(-np.abs(corner - 0.34 * period), -2.2, 1.0)
    middle = step(-(np.abs(u - period / 2) + np.abs(v - period / 2)), -0.16 * period, 1.0)
    tone = 0.75 - 0.6 * np.maximum(rings, middle) + 0.08 * noise(rng, n, 30)
    return tone * step(np.minimum(u, v), 1.0, 1.0)


def striped_cloth(rng: Generator, n: int) -> Tone:
    """Stripes of two widths by turns."""
    y, x = grid(n)
    turn = rng.choice([0.0, np.pi / 2, np.pi / 4, -np.pi / 4])
    across = np.cos(turn) * x + np.sin(turn) * y
    period = rng.uniform(17, 23)
    broad = step(-np.abs(across % period - 0.3 * period), -0.2 * period, 1.0)
    narrow = step(-np.abs(across % period - 0.78 * period), -0.06 * period, 1.0)
    tone: Tone = 0.1 + 0.85 * np.maximum(broad, 0.75 * narrow) + 0.06 * noise(rng, n, 60)
    return tone.astype(np.float32)


def checked_cloth(rng: Generator, n: int) -> Tone:
    """Gingham: crossing bands that double where they meet."""
    y, x = grid(n)
    period = rng.uniform(16, 21)
    bands = [step(-np.abs(line % period - period / 2), -0.25 * period, 1.0) for line in (x, y)]
    return 0.95 - 0.42 * (bands[0] + bands[1]) + 0.05 * noise(rng, n, 60)


def dotted_cloth(rng: Generator, n: int) -> Tone:
    """Round dots, each row set off by half."""
    canvas = np.full((n, n), 0.15, np.float32) + 0.08 * noise(rng, n, 60)
    period, share = rng.uniform(14, 19), rng.uniform(0.26, 0.33)
    for row in range(-1, int(n / (0.8 * period)) + 2):
        for column in range(-1, int(n / period) + 2):
            disc(canvas, (column + 0.5 * (row % 2)) * period, row * 0.8 * period, share * period, 0.95)
    return canvas


def net(rng: Generator, n: int) -> Tone:
    """Thin ropes that hang in curves from knot to knot."""
    period = rng.uniform(17, 21)
    canvas = np.full((n, n), 0.15, np.float32) + 0.15 * noise(rng, n, 50)
    t = np.linspace(0, 1, 7)
    for row in range(-2, int(2 * n / period) + 3):
        for column in range(-1, int(n / period) + 2):
            x, y = (column + 0.5 * (row % 2)) * period, row * period / 2
            for sign in (-1, 1):
                sag = 0.18 * period * np.sin(np.pi * t)
                rope = np.stack([x + sign * 0.5 * period * t, y + 0.5 * period * t + sag], 1)
                cv2.polylines(canvas, [np.rint(rope * 16).astype(np.int32)], False, 0.9, 1, cv2.LINE_AA, 4)
            disc(canvas, x, y, 2.3, 1.0)
    return canvas


def roof_tiles(rng: Generator, n: int) -> Tone:
    """Rows of round-ended tiles, the upper ones over the lower ones."""
    wide, high = rng.uniform(14, 17), rng.uniform(11, 13)
    canvas = np.zeros((n, n), np.float32)
    bend = np.linspace(0, np.pi, 9)
    for row in reversed(range(-2, int(n / high) + 2)):
        for column in range(-1, int(n / wide) + 2):
            x, y = (column + 0.5 * (row % 2)) * wide, row * high
            end = np.stack([x + 0.5 * wide * np.cos(bend), y + high * (0.8 + 0.75 * np.sin(bend))], 1)
            shape = np.concatenate([[[x - 0.5 * wide, y], [x + 0.5 * wide, y]], end])
            polygon(canvas, np.add(shape, [0, 1.8]), 0.0)
            polygon(canvas, shape, rng.uniform(0.45, 0.9))
            polygon(canvas, shape - [0, 0.55 * high], rng.uniform(0.35, 0.6))
    return canvas


def to_line(values: Tone, period: float) -> Tone:
    """Distance to the nearest multiple of the period."""
    rest = values % period
    distance: Tone = np.minimum(rest, period - rest)
    return distance
