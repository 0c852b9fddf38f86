"""Every texture in several colours, as pictures cut from sheets that are drawn once a process."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.storybook import textures_made as made
from training.storybook import textures_nature as nature
from training.storybook.brushes import Tone
from training.storybook.textures_families import FAMILY_TEXTURES

SHEET = 512  # pixels of a sheet's side
SHEETS = 4  # of each texture

# Colours from dark to light. Every hue serves textures of several classes.
PALETTES: dict[str, tuple[str, str, str]] = {
    "moss": ("2c4a1e", "5d8a3a", "a5c46a"),
    "spring": ("3f7d2c", "79b93f", "d0e67a"),
    "pine": ("12332b", "2c6650", "7fb08a"),
    "olive": ("4a4a1e", "8a8440", "cfc67c"),
    "sea": ("17406e", "2f7fb8", "9fd6ee"),
    "dusk": ("2b2a5e", "6a5fa8", "c9b3e0"),
    "lagoon": ("0f5257", "2fa3a0", "a8ebdc"),
    "pale blue": ("8fb9dc", "bcdcf0", "eef8ff"),
    "slate": ("33393f", "6d7680", "b9c1c8"),
    "ash": ("6e6a66", "a8a39c", "e6e2da"),
    "cream": ("b79f74", "e0cc9f", "fbf2d8"),
    "gold": ("7c5512", "c9942c", "f6d978"),
    "clay": ("6b2f1c", "b4603a", "e8ab7c"),
    "brick": ("5c1f1c", "a33c32", "e39a86"),
    "cocoa": ("2f1d14", "6b452d", "b98d62"),
    "rose": ("7a2f4d", "c9638a", "f6c3d4"),
    "plum": ("38163f", "74407f", "c493cc"),
    "night": ("070b1f", "1b2450", "f3eccb"),
    "ink": ("101014", "3a3a48", "e8e4f4"),
    "forest night": ("04140f", "133b32", "d9f2e0"),
    "chalk": ("b4b9c4", "dde2ea", "ffffff"),
    "blush": ("d9a79c", "f1d3c8", "fff4ec"),
}

TEXTURES: dict[str, tuple[Callable[[Generator, int], Tone], tuple[str, ...]]] = {
    "grass": (nature.grass, ("moss", "spring", "pine", "olive", "gold", "lagoon")),
    "water": (nature.water, ("sea", "lagoon", "dusk", "slate", "pale blue", "pine")),
    "sand": (nature.sand, ("cream", "gold", "clay", "blush", "ash")),
    "snow": (nature.snow, ("chalk", "pale blue", "blush", "dusk", "ash")),
    "gravel": (nature.gravel, ("ash", "slate", "cocoa", "cream", "clay", "dusk")),
    "cobblestones": (nature.cobblestones, ("slate", "ash", "clay", "dusk", "olive", "cream")),
    "road": (nature.road, ("slate", "ink", "cocoa", "plum", "night")),
    "hay": (nature.hay, ("gold", "cream", "olive", "clay", "moss")),
    "corn field": (nature.corn_field, ("spring", "gold", "moss", "olive", "lagoon")),
    "flower meadow": (nature.flower_meadow, ("spring", "rose", "plum", "moss", "gold", "sea")),
    "sky": (nature.sky, ("pale blue", "sea", "blush", "dusk", "gold", "lagoon")),
    "clouds": (nature.clouds, ("pale blue", "chalk", "blush", "ash", "dusk", "sea")),
    "starry sky": (nature.starry_sky, ("night", "ink", "forest night", "plum", "sea")),
    "forest": (nature.forest, ("pine", "moss", "lagoon", "olive", "clay", "slate")),
    "brick wall": (made.brick_wall, ("brick", "clay", "slate", "cream", "plum", "olive")),
    "stone wall": (made.stone_wall, ("ash", "slate", "cream", "clay", "moss", "dusk")),
    "planks": (made.planks, ("cocoa", "clay", "cream", "slate", "lagoon", "brick")),
    "marble": (nature.marble, ("chalk", "blush", "ash", "pine", "rose", "pale blue")),
    "bark": (nature.bark, ("cocoa", "ash", "clay", "olive", "slate")),
    "lattice": (made.lattice, ("cream", "cocoa", "spring", "chalk", "sea", "brick")),
    "wallpaper": (made.wallpaper, ("rose", "dusk", "pine", "cream", "sea", "gold")),
    "carpet": (made.carpet, ("brick", "plum", "sea", "gold", "pine", "rose")),
    "floor tiles": (made.floor_tiles, ("chalk", "sea", "clay", "lagoon", "slate", "olive")),
    "leaves": (nature.leaves, ("clay", "gold", "brick", "moss", "spring", "plum")),
    "striped cloth": (made.striped_cloth, ("brick", "sea", "rose", "chalk", "pine", "gold")),
    "checked cloth": (made.checked_cloth, ("brick", "sea", "spring", "rose", "slate", "gold")),
    "dotted cloth": (made.dotted_cloth, ("rose", "sea", "brick", "plum", "lagoon", "ink")),
    "net": (made.net, ("sea", "lagoon", "cocoa", "slate", "ink", "moss")),
    "roof tiles": (made.roof_tiles, ("brick", "clay", "slate", "pine", "dusk", "cocoa")),
}
_EVERY = TEXTURES | FAMILY_TEXTURES
FADING = ("sky", "clear sky")


def paint(name: str, rng: Generator, height: int, width: int, zoom: float) -> NDArray[np.uint8]:
    """A rectangle of a texture in one of its colours, uint8 [height, width, 3] RGB.

    Args:
        name: one of `TEXTURES`, or of the families'.
        rng: decides colour, place on the sheet, size and, where a texture has no up, a small turn.
        height, width: pixels.
        zoom: 1 for pictures with a short side of 192 pixels.
    """
    sheet = _sheets(name)[rng.integers(SHEETS)]
    scale = zoom * rng.uniform(0.8, 1.3)
    turn = rng.uniform(-0.07, 0.07)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    x, y = rng.uniform(0, 1, 2) * [max(0, SHEET - width / scale), max(0, SHEET - height / scale)]
    if name in FADING:  # its fade goes once from the top of the rectangle to its bottom
        cos, sin, x, y = SHEET / max(height, width), 0.0, 0.0, 0.0
    place = np.array([[cos, -sin, x], [sin, cos, y]], np.float64)
    mode = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    tones = cv2.warpAffine(sheet, place, (width, height), flags=mode, borderMode=cv2.BORDER_REFLECT)
    palettes = _EVERY[name][1]
    painted: NDArray[np.uint8] = _colours(palettes[rng.integers(len(palettes))], rng)[tones]
    return painted


def ramp(dark: str, middle: str, light: str) -> NDArray[np.float32]:
    """256 colours from dark over middle to light, [256, 3]."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in (dark, middle, light)], np.float32)
    t = np.linspace(0, 1, 256, dtype=np.float32)
    return np.stack([np.interp(t, (0, 0.5, 1), stops[:, i]) for i in range(3)], 1).astype(np.float32)


def _colours(palette: str, rng: Generator) -> NDArray[np.uint8]:
    """The palette's ramp, a little warmer or colder, lighter or darker."""
    shift = rng.uniform(-14, 14, 3) + rng.uniform(-12, 12)
    return np.clip(ramp(*PALETTES[palette]) + shift, 0, 255).astype(np.uint8)


@functools.cache
def _sheets(name: str) -> list[NDArray[np.uint8]]:
    """The texture's sheets, the same in every process."""
    sheets = []
    for number in range(SHEETS):
        rng = np.random.default_rng([number, *name.encode()])
        tone = _EVERY[name][0](rng, SHEET)
        sheets.append((255 * np.clip(tone, 0, 1)).astype(np.uint8))
    return sheets
