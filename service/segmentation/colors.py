"""Colours of answers (PNG, overlay, legend): classes as far apart as can be, and always the same ones."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.pictures.palette import palette as palette_of
from model.vocabulary.remembered import remembered

Palette = Literal["distinct", "voc"] | tuple[str, ...]
_CLASSES_KEPT = 1 << 16


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


@remembered(_CLASSES_KEPT, len)  # callers send the same classes with every picture
def _class_colors(given: tuple[str | None, ...]) -> NDArray[np.uint8]:
    chosen = {color.lower() for color in given if color is not None}
    wanted = len(given) + len(chosen)
    ours = palette_of(64 << (wanted // 64).bit_length())  # few lengths, so that they are computed once
    own = (color for color in ours if to_hex(color) not in chosen)
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
