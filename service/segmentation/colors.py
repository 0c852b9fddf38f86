"""Colours of answers (PNG, overlay, legend): classes as far apart as can be, and always the same ones."""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Palette = Literal["distinct", "voc"] | tuple[str, ...]
_LISTS_KEPT = 256
_STEPS = 16  # candidates per channel: 4,096 in all
_LIGHTNESS = (25.0, 92.0)  # CIELAB's L; darker and lighter ones hardly differ from black and white


def class_colors(given: Sequence[str | None], palette: Palette = "distinct") -> NDArray[np.uint8]:
    """A colour for each class.

    Args:
        given: "#rrggbb" where the caller chose one.
        palette: where the others' colours come from. "distinct": colours that nobody chose, in a fixed order
            in which each is as far from those before it as can be; "voc": PASCAL VOC's colour of the label;
            or the colours of labels 1, 2, ..., beyond which "distinct" goes on.

    Returns:
        uint8 [K, 3], RGB; to be read only.
    """
    if palette == "voc":
        given = [voc_color(label) if color is None else color for label, color in enumerate(given, 1)]
    elif palette != "distinct":
        given = [
            palette[at] if color is None and at < len(palette) else color for at, color in enumerate(given)
        ]
    return _class_colors(tuple(given))


def voc_color(label: int) -> str:
    """PASCAL VOC's colour of a label, "#rrggbb"; from 256 on they come again.

    The label's bits are dealt to the three channels, from the highest bit down.
    """
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (label >> 3 * place + channel & 1) << 7 - place
    return to_hex(channels)


def reported_colors(
    reported: Sequence[int], given: Sequence[str | None], palette: Palette = "distinct"
) -> NDArray[np.uint8]:
    """A colour for each class that answers tell of, see `class_colors`.

    Args:
        reported: places of these classes among all.
        given: a colour or None for each of all classes.
        palette: for those without.
    """
    return class_colors([given[index] for index in reported], palette)


@functools.lru_cache(maxsize=_LISTS_KEPT)  # callers send the same classes with every picture
def _class_colors(given: tuple[str | None, ...]) -> NDArray[np.uint8]:
    chosen = {color.lower() for color in given if color is not None}
    wanted = len(given) + len(chosen)
    free = [color for color in _separated(64 << (wanted // 64).bit_length()) if to_hex(color) not in chosen]
    own = (free[i % len(free)] for i in range(len(given)))
    colors = [next(own) if color is None else _from_hex(color) for color in given]
    array = np.array(colors, dtype=np.uint8).reshape(-1, 3)
    array.flags.writeable = False
    return array


def to_hex(color: Sequence[int] | NDArray[np.uint8]) -> str:
    """ "#rrggbb" of a colour."""
    red, green, blue = (int(channel) for channel in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _from_hex(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


@functools.cache
def _separated(count: int) -> list[tuple[int, int, int]]:
    """Colours in the order of farthest-point sampling in CIELAB, where distance is what eyes see."""
    import cv2  # not for those who only paint, with colours that a service has chosen

    levels = np.linspace(0, 255, _STEPS).round().astype(np.uint8)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    usable = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    rgb, lab = rgb[usable], lab[usable]
    taken = [int(np.linalg.norm(lab - np.array([55, 80, 67], np.float32), axis=1).argmin())]  # a strong red
    distance = np.full(len(rgb), np.inf, np.float32)
    for _ in range(min(len(rgb), count) - 1):
        distance = np.minimum(distance, ((lab - lab[taken[-1]]) ** 2).sum(1))
        taken.append(int(distance.argmax()))
    return [(int(red), int(green), int(blue)) for red, green, blue in rgb[taken]]
