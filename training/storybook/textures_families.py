"""Textures of the families: what is alike in kind and in colour, and differs in its pattern.

The nine that Storybook has, too, keep its colours, by which they can be told from their kin.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from training.storybook import textures_made as made
from training.storybook import textures_nature as nature
from training.storybook.brushes import Tone, disc, grid, noise, places, polygon, rough, shades, step
from training.storybook.sprites import star

CLOTH = ("brick", "sea", "rose", "plum", "pine", "gold")
WALL = ("brick", "clay", "slate", "cream", "ash", "olive")
TILES = ("chalk", "sea", "clay", "lagoon", "slate", "brick")
FIELD = ("spring", "gold", "moss", "olive", "rose", "cream")
ROAD = ("slate", "ash", "cocoa", "clay", "dusk", "ink")
SKY = ("pale blue", "sea", "blush", "dusk", "night", "plum")


def zigzag_cloth(rng: Generator, n: int) -> Tone:
    """Zigzag bands of one width."""
    y, x = grid(n)
    wide, high = rng.uniform(15, 20), rng.uniform(15, 19)
    bent = y + np.abs(x % wide - wide / 2)
    tone: Tone = 0.1 + 0.85 * step(-np.abs(bent % high - high / 2), -0.27 * high, 1.2)
    return (tone + 0.06 * noise(rng, n, 60)).astype(np.float32)


def ringed_cloth(rng: Generator, n: int) -> Tone:
    """Dotted cloth whose dots are rings."""
    canvas = np.full((n, n), 0.15, np.float32) + 0.08 * noise(rng, n, 60)
    period = rng.uniform(16, 21)
    ground = canvas.copy()
    for tone, share in ((0.95, 0.42), (0.15, 0.22)):
        for row in range(-1, int(n / (0.8 * period)) + 2):
            for column in range(-1, int(n / period) + 2):
                x, y = (column + 0.5 * (row % 2)) * period, row * 0.8 * period
                disc(canvas, x, y, share * period, tone)
    return np.where(canvas < 0.3, ground, canvas).astype(np.float32)


def diamond_cloth(rng: Generator, n: int) -> Tone:
    """Checked cloth on its corner, with lozenges twice as high as wide."""
    y, x = grid(n)
    wide = rng.uniform(14, 18)
    high = 1.7 * wide
    inside = np.abs(x % wide - wide / 2) / wide + np.abs(y % high - high / 2) / high
    tone: Tone = 0.95 - 0.8 * step(inside, 0.5, 0.08)
    return (tone - 0.06 * noise(rng, n, 60)).astype(np.float32)


def block_wall(rng: Generator, n: int) -> Tone:
    """Square blocks, as large as two bricks, each set off by half."""
    y, x = grid(n)
    side = rng.uniform(24, 29)
    course = np.floor(y / side)
    shifted = x + (course % 2) * side / 2
    block = (course * 97 + np.floor(shifted / side)).astype(np.int32)
    joint = np.minimum(made.to_line(y, side), made.to_line(shifted, side))
    return np.where(joint < 1.6, 1.0, shades(rng, block, 0.15, 0.6) + 0.12 * rough(rng, n, 5)).astype(
        np.float32
    )


def log_wall(rng: Generator, n: int) -> Tone:
    """Round logs, one upon another, light above and dark below."""
    y, x = grid(n)
    high = rng.uniform(15, 19)
    log = np.floor(y / high).astype(np.int32)
    across = (y % high) / high
    grain = 0.06 * np.sin((y + 3 * noise(rng, n, 40, 0.3)) * 2.1 + 0.02 * x)
    tone: Tone = shades(rng, log, 0.75, 1.0) * np.sin(np.pi * np.clip(across * 0.85 + 0.15, 0, 1)) + grain
    return tone.astype(np.float32)


def star_tiles(rng: Generator, n: int) -> Tone:
    """Square tiles with a star of eight tips on each."""
    y, x = grid(n)
    period = rng.uniform(27, 32)
    canvas = np.full((n, n), 0.75, np.float32) + 0.08 * noise(rng, n, 30)
    for row in range(int(n / period) + 1):
        for column in range(int(n / period) + 1):
            polygon(canvas, star((column + 0.5) * period, (row + 0.5) * period, 0.46 * period, 8, 0.5), 0.12)
            disc(canvas, (column + 0.5) * period, (row + 0.5) * period, 0.1 * period, 0.8)
    return canvas * step(np.minimum(made.to_line(x, period), made.to_line(y, period)), 1.0, 1.0)


def chess_tiles(rng: Generator, n: int) -> Tone:
    """Dark and light tiles by turns."""
    y, x = grid(n)
    side = rng.uniform(15, 18)
    dark = (np.floor(x / side) + np.floor(y / side)) % 2
    tone = 0.85 - 0.7 * dark + 0.1 * rough(rng, n, 12)
    tiles: Tone = tone * step(np.minimum(made.to_line(x, side), made.to_line(y, side)), 0.6, 0.8)
    return tiles.astype(np.float32)


def cabbage_field(rng: Generator, n: int) -> Tone:
    """Round heads of leaves in rows."""
    canvas = np.full((n, n), 0.1, np.float32) + 0.15 * rough(rng, n, 6)
    period = rng.uniform(21, 25)
    for x, y in places(rng, n, period, 0.06):
        for share, tone in ((0.46, 0.5), (0.36, 0.8), (0.26, 0.45), (0.17, 0.95)):
            shift = rng.uniform(-0.05, 0.05, 2) * period
            disc(canvas, x + shift[0], y + shift[1], share * period, tone)
    return canvas


def pebble_road(rng: Generator, n: int) -> Tone:
    """Round pebbles of many sizes, apart from one another."""
    canvas = np.full((n, n), 0.3, np.float32) + 0.15 * rough(rng, n, 5)
    for x, y in places(rng, n, rng.uniform(13, 15), 0.25):
        radius, tone = rng.uniform(3, 6.5), rng.uniform(0.55, 1.0)
        disc(canvas, x + 0.8, y + 1.2, radius, 0.05)
        disc(canvas, x, y, radius, tone)
    return canvas


FAMILY_TEXTURES: dict[str, tuple[Callable[[Generator, int], Tone], tuple[str, ...]]] = {
    "zigzag cloth": (zigzag_cloth, CLOTH),
    "ringed cloth": (ringed_cloth, CLOTH),
    "diamond cloth": (diamond_cloth, CLOTH),
    "block wall": (block_wall, WALL),
    "log wall": (log_wall, WALL),
    "star tiles": (star_tiles, TILES),
    "chess tiles": (chess_tiles, TILES),
    "flower field": (nature.flower_meadow, FIELD),
    "cabbage field": (cabbage_field, FIELD),
    "hay field": (nature.hay, FIELD),
    "asphalt road": (nature.road, ROAD),
    "gravel road": (nature.gravel, ROAD),
    "pebble road": (pebble_road, ROAD),
    "cobbled road": (nature.cobblestones, ROAD),
    "clear sky": (nature.sky, SKY),
    "cloudy sky": (nature.clouds, SKY),
}
