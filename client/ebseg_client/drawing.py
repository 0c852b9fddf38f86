"""Label maps drawn in colours, over the picture or alone. NumPy and Pillow do it all."""

import html
import io
from base64 import b64encode
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from ebseg_client.region_names import write_names

OTHER = (0, 0, 0)  # colour of pixels that belong to no class; RGB
OPACITY = 0.35
WIDE = 960  # pixels of a long side; larger pictures get wider outlines
BLOCK = 1 << 17  # pixels blended at a time; they stay in the processor's cache
PREVIEW = 640  # pixels, long side of what a notebook shows


def overlay(
    picture: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    colors: NDArray[np.uint8],
    opacity: float = OPACITY,
    names: Sequence[str] = (),
) -> NDArray[np.uint8]:
    """The picture with its classes' colours laid over it, outlines between them, and names on the regions.

    Args:
        picture: RGB, uint8 [H, W, 3], of the label map's size; "other" shows it untouched.
        labels: label map.
        colors: uint8 [K, 3].
        opacity: of the colours; outlines are opaque.
        names: K of them, or none to write none.
    """
    paint = painted(labels, colors)
    blended = _blended(picture, paint, opacity)
    wide = max(1, round(max(labels.shape) / WIDE))
    border = np.zeros(labels.shape, bool)
    border[:, wide:] |= labels[:, wide:] != labels[:, :-wide]
    border[wide:] |= labels[wide:] != labels[:-wide]
    blended[border] = paint[border]
    untouched = labels == 0
    blended[untouched] = picture[untouched]
    if names:
        write_names(blended, labels, colors, names)
    return blended


def painted(labels: NDArray[np.uint16], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map in its classes' colours, RGB, uint8 [H, W, 3]; "other" is black."""
    return np.concatenate([np.array([OTHER], np.uint8), colors])[labels]


def rgb_of(colors: Sequence[str]) -> NDArray[np.uint8]:
    """Colours "#rrggbb" as uint8 [K, 3]."""
    return np.array([ImageColor.getrgb(color) for color in colors], np.uint8).reshape(-1, 3)


def page(image: Image.Image, classes: Sequence[tuple[str, str, float]]) -> str:
    """HTML of a picture, at most `PREVIEW` pixels wide and high, with a legend.

    Args:
        image: of any size.
        classes: name, colour ("#rrggbb") and share of each.
    """
    shown = image.copy()
    shown.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    entries = "".join(
        f'<span style="white-space:nowrap"><span style="color:{html.escape(color)}">&#9632;</span> '
        f"{html.escape(name)} {share:.1%}</span> &emsp;"
        for name, color, share in classes
    )
    source = b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="label map" src="data:image/png;base64,{source}"><div>{entries}</div>'


def _blended(picture: NDArray[np.uint8], paint: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    """Both pictures mixed, rounded to the nearest, halves to the even one."""
    mixed = np.empty_like(picture)
    rows = max(1, BLOCK // picture.shape[1])
    for top in range(0, len(picture), rows):
        block = slice(top, top + rows)
        sums = picture[block] * np.float32(1 - opacity)
        sums += paint[block] * np.float32(opacity)
        mixed[block] = np.rint(sums, out=sums)
    return mixed
