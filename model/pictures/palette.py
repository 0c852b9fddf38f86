"""Colours of classes, made to lie over photographs: of middle lightness and bounded chroma, far apart.

Distances are those of OKLab, where equal steps look equal; its matrices are those of Ottosson's definition
(https://bottosson.github.io/posts/oklab/).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Of the candidates. Darker, lighter and paler ones are lost over a photograph, gaudier ones hide it.
LIGHTNESS = np.linspace(0.60, 0.82, 12)
CHROMA = np.linspace(0.10, 0.19, 6)
HUES = np.arange(90) * 2 * np.pi / 90
FIRST = (0.70, 0.17, 0.45)  # lightness, chroma and hue, in radians, of the first class: a coral

_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def palette(count: int) -> NDArray[np.uint8]:
    """Colours in an order in which each is as far from those before it as can be.

    Args:
        count: how many there are to be; some thousands are different, beyond them they come again.

    Returns:
        uint8 [count, 3], RGB; to be read only. A shorter palette is the beginning of a longer one.
    """
    colors, lab = _candidates()
    taken = [int(((lab - _lab(*FIRST)) ** 2).sum(1).argmin())]
    distance = np.full(len(lab), np.inf)
    for _ in range(min(count, len(lab)) - 1):
        distance = np.minimum(distance, ((lab - lab[taken[-1]]) ** 2).sum(1))
        taken.append(int(distance.argmax()))
    chosen = colors[np.resize(taken, count)] if count else colors[:0]
    chosen.flags.writeable = False
    return chosen


@cache
def _candidates() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Those that a screen can show: RGB, uint8 [N, 3], each once, and OKLab, [N, 3]."""
    lightness, chroma, hue = (grid.ravel() for grid in np.meshgrid(LIGHTNESS, CHROMA, HUES, indexing="ij"))
    lab = _lab(lightness, chroma, hue)
    linear = (lab @ _TO_CONES.T) ** 3 @ _TO_RGB.T
    shown = ((linear >= 0) & (linear <= 1)).all(1)
    linear, lab = linear[shown], lab[shown]
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors, first = np.unique(np.rint(255 * encoded).astype(np.uint8), axis=0, return_index=True)
    return colors, lab[first]


def _lab(
    lightness: float | NDArray[np.float64],
    chroma: float | NDArray[np.float64],
    hue: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    return np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1)
