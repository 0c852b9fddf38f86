"""Textures of ground, plants and sky. Each takes a generator and a size, and gives tones in 0..1."""

import cv2
import numpy as np
from numpy.random import Generator

from training.storybook.brushes import (
    Tone,
    cells,
    disc,
    grid,
    noise,
    places,
    polygon,
    rough,
    shades,
    step,
    strokes,
)


def grass(rng: Generator, n: int) -> Tone:
    """Short upright blades."""
    canvas = 0.3 + 0.2 * noise(rng, n, 40)
    return strokes(canvas, rng, n * n // 55, (9, 17), (-0.35, 0.35), 2, (0.15, 0.95))


def water(rng: Generator, n: int) -> Tone:
    """Level waves with bright crests."""
    y, _ = grid(n)
    bend = 16 * noise(rng, n, 34, 0.8) + 5 * noise(rng, n, 12)
    period = rng.uniform(11, 15)
    wave = 0.5 + 0.5 * np.sin((y + bend) * (2 * np.pi / period))
    return 0.35 * wave + 0.65 * step(wave + 0.25 * noise(rng, n, 26, 0.4), 1.0, 0.25)


def sand(rng: Generator, n: int) -> Tone:
    """Slanting dunes of fine grain."""
    y, x = grid(n)
    lean = rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)
    ripple = (y + lean * x + 26 * noise(rng, n, 90)) / rng.uniform(24, 30)
    grain = cv2.GaussianBlur(rng.random((n, n), dtype=np.float32), (0, 0), 0.8)
    # left in double precision: rounded to float32 first, some pixels of the sheets would be other bytes
    tone: Tone = 0.45 * (ripple % 1) + 0.3 + 1.3 * (grain - 0.5)
    return tone


def snow(rng: Generator, n: int) -> Tone:
    """Soft drifts with scattered six-rayed crystals."""
    canvas = 0.35 + 0.25 * noise(rng, n, 60, 0.5)
    for x, y in places(rng, n, 21, 0.4):
        size = rng.uniform(4, 7.5)
        for turn in np.arange(3) * np.pi / 3 + rng.uniform(0, 1):
            dx, dy = size * np.cos(turn), size * np.sin(turn)
            start, end = (round(x - dx), round(y - dy)), (round(x + dx), round(y + dy))
            cv2.line(canvas, start, end, 1.0, 1 + (size > 5), cv2.LINE_AA)
    return canvas


def gravel(rng: Generator, n: int) -> Tone:
    """Small sharp stones of many shades."""
    _, to_edge, owner = cells(rng, n, 9, 0.45)
    return shades(rng, owner, 0.15, 1.0) * step(to_edge, 1.0, 1.5)


def cobblestones(rng: Generator, n: int) -> Tone:
    """Round stones in rows, light in their middles."""
    nearest, to_edge, owner = cells(rng, n, rng.uniform(20, 24), 0.12)
    dome = np.clip(1.1 - nearest / 14, 0, 1)
    return (shades(rng, owner, 0.65, 1.0) * dome * step(to_edge, 2.0, 2.5)).astype(np.float32)


def road(rng: Generator, n: int) -> Tone:
    """Dark tar with dashed lines along it."""
    y, x = grid(n)
    lean = rng.uniform(-0.15, 0.15)
    across = (y + lean * x) % rng.uniform(44, 56)
    along = (x - lean * y) % 42
    dashes = step(-np.abs(across - 22), -3.0, 1.0) * step(-np.abs(along - 21), -13.0, 1.0)
    edges = step(-np.abs(across - 44), -1.2, 1.0)
    tar = 0.2 + 0.2 * rng.random((n, n), dtype=np.float32)
    marked: Tone = np.maximum(tar, np.maximum(dashes, 0.6 * edges))
    return marked


def hay(rng: Generator, n: int) -> Tone:
    """Long straws that cross each other."""
    canvas = np.full((n, n), 0.25, np.float32)
    return strokes(canvas, rng, n * n // 110, (28, 55), (0, 2 * np.pi), 2, (0.1, 1.0))


def corn_field(rng: Generator, n: int) -> Tone:
    """Rows of stalks with leaves in pairs, like arrow heads above each other."""
    y, x = grid(n)
    period = rng.uniform(19, 23)
    across = np.abs((x + 2 * noise(rng, n, 30)) % period - period / 2)
    leaves = ((y + 0.9 * across + 3 * noise(rng, n, 20)) / 14) % 1
    stalk = step(-across, -1.8, 1.0)
    blades = (0.25 + 0.6 * step(-np.abs(leaves - 0.5), -0.22, 0.15)) * step(-across, -8.5, 2)
    row: Tone = np.maximum(stalk, blades)
    return row


def flower_meadow(rng: Generator, n: int) -> Tone:
    """Five-petalled flowers over blades."""
    canvas = strokes(
        np.full((n, n), 0.25, np.float32), rng, n * n // 110, (7, 12), (-0.4, 0.4), 1, (0.05, 0.45)
    )
    for x, y in places(rng, n, 17, 0.3):
        size = rng.uniform(2.4, 3.6)
        for turn in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
            disc(canvas, x + size * np.cos(turn), y + size * np.sin(turn), size * 0.8, 1.0)
        disc(canvas, x, y, size * 0.6, 0.5)
    return canvas


def sky(rng: Generator, n: int) -> Tone:
    """A plain fade from top to bottom, with hardly a haze."""
    y, x = grid(n)
    return 0.1 + 0.8 * ((y + 0.15 * x) / (1.15 * n)) + 0.08 * noise(rng, n, 120, 0.4)


def clouds(rng: Generator, n: int) -> Tone:
    """Heaps of puffs, each light above and shaded below."""
    canvas = np.full((n, n), 0.3, np.float32)
    for x, y in places(rng, n, 22, 0.4):
        size = rng.uniform(9, 15)
        disc(canvas, x, y + 2.5, size, 0.25)
        disc(canvas, x, y, size, rng.uniform(0.75, 0.85))
        disc(canvas, x - 0.15 * size, y - 0.25 * size, 0.7 * size, 1.0)
    return cv2.GaussianBlur(canvas, (0, 0), 1.6).astype(np.float32)


def starry_sky(rng: Generator, n: int) -> Tone:
    """Stars of five points and specks on an even ground."""
    canvas = 0.05 + 0.15 * noise(rng, n, 80)
    for x, y in places(rng, n, 24, 0.4):
        size, turn = rng.uniform(3.5, 7.5), rng.uniform(0, 2 * np.pi)
        angles = turn + np.arange(10) * np.pi / 5
        reach = np.where(np.arange(10) % 2, 0.42, 1.0) * size
        polygon(canvas, np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], 1), 1.0)
    for x, y in places(rng, n, 18, 0.5):
        disc(canvas, x, y, 1.1, 0.8)
    return canvas


def forest(rng: Generator, n: int) -> Tone:
    """Rows of firs, each before the one behind."""
    canvas = np.full((n, n), 0.1, np.float32)
    for x, y in places(rng, n, 17, 0.25):
        height, width = rng.uniform(30, 38), rng.uniform(8, 11)
        tone = rng.uniform(0.35, 0.95)
        for tier in range(3):
            top, bottom = y - height * (1 - 0.28 * tier), y - height * (0.55 - 0.28 * tier)
            half = width * (0.5 + 0.25 * tier)
            shape = np.array([[x, top], [x + half, bottom], [x - half, bottom]])
            polygon(canvas, np.add(shape, [0, 2]), 0.0)
            polygon(canvas, shape, tone * (1 - 0.12 * tier))
    return canvas


def leaves(rng: Generator, n: int) -> Tone:
    """Pointed leaves lying over each other, each with its midrib."""
    canvas = np.full((n, n), 0.1, np.float32)
    along = np.linspace(0, np.pi, 9)
    outline = np.concatenate(
        [
            np.stack([np.cos(along), 0.45 * np.sin(along) ** 1.3], 1),
            np.stack([-np.cos(along), -0.45 * np.sin(along)], 1),
        ]
    )
    order = list(places(rng, n, 11, 0.5))
    rng.shuffle(order)
    for x, y in order:
        size, turn = rng.uniform(9, 13), rng.uniform(0, 2 * np.pi)
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        polygon(canvas, 1.15 * size * outline @ spin + [x, y], 0.0)
        polygon(canvas, size * outline @ spin + [x, y], rng.uniform(0.4, 1.0))
        rib = np.rint(np.array([[-0.9 * size, 0], [0.9 * size, 0]]) @ spin + [x, y]).astype(int)
        cv2.line(canvas, rib[0].tolist(), rib[1].tolist(), 0.15, 1, cv2.LINE_AA)
    return canvas


def bark(rng: Generator, n: int) -> Tone:
    """Deep cracks that run upright and wander."""
    _, x = grid(n)
    ridge = ((x + 22 * noise(rng, n, 24, 2.5) + 6 * rough(rng, n, 12, 2)) / rng.uniform(10, 13)) % 1
    return step(np.abs(ridge - 0.5), 0.14, 0.2) * (0.5 + 0.5 * rough(rng, n, 14, 2.5))


def marble(rng: Generator, n: int) -> Tone:
    """Thin branching veins on a smooth clouded ground."""
    turn = rng.uniform(0.4, 1.1)
    y, x = grid(n)
    path = np.cos(turn) * x + np.sin(turn) * y
    first = np.abs(((path + 75 * rough(rng, n, 70)) / 42) % 1 - 0.5)
    second = np.abs(((path - 2.2 * y + 60 * rough(rng, n, 50)) / 60) % 1 - 0.5)
    veins = np.maximum(step(-first, -0.05, 0.06), 0.6 * step(-second, -0.03, 0.05))
    tone: Tone = 0.75 + 0.25 * noise(rng, n, 50) - 0.75 * veins
    return tone.astype(np.float32)
