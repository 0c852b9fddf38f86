"""Label map to pictures: the indexed PNG, and the mask laid over the picture.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored. NumPy and Pillow do it
all, for `ebseg segment --url` draws with them alone.
"""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from service.segmentation.colors import OTHER

Labels = NDArray[np.uint16]
MOST_PALETTE_CLASSES = 255  # a palette has 256 entries, and one is "other"
WEBP_LONGEST = 16383  # pixels of a side that WebP can hold
OPACITY = 0.5
BLOCK = 1 << 17  # pixels blended at a time; they stay in the processor's cache


def label_png(labels: Labels, names: Sequence[str], colors: NDArray[np.uint8]) -> bytes:
    """The label map as PNG, whose pixel values are the labels.

    Up to 255 classes it is a palette picture in the classes' colours, beyond that 16-bit grey. The
    text chunk `classes` holds a JSON list of names by label; its first entry is "other".
    """
    if len(names) <= MOST_PALETTE_CLASSES:
        image = Image.fromarray(labels.astype(np.uint8), "L")
        image.putpalette([*OTHER, *colors.ravel().tolist()])
    else:
        image = Image.fromarray(labels)
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt("classes", json.dumps(["other", *names], ensure_ascii=False))
    return _saved(image, "PNG", pnginfo=chunk)


def overlay(
    picture: NDArray[np.uint8], labels: Labels, colors: NDArray[np.uint8], opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """The picture with its classes' colours laid over it and thin borders between them.

    Args:
        picture: RGB, uint8 [H, W, 3], of the label map's size; "other" shows it untouched.
        labels: label map.
        colors: uint8 [K, 3].
        opacity: of the colours; borders are opaque.
    """
    paint = np.concatenate([np.array([OTHER], np.uint8), colors])[labels]
    blended = _blended(picture, paint, opacity)
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    blended[border] = paint[border]
    untouched = labels == 0
    blended[untouched] = picture[untouched]
    return blended


def webp(picture: NDArray[np.uint8]) -> bytes:
    """RGB, uint8 [H, W, 3], as WebP; neither side above `WEBP_LONGEST`."""
    return _saved(Image.fromarray(picture), "WEBP", quality=85)


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


def png(image: Image.Image) -> bytes:
    """A picture as PNG."""
    return _saved(image, "PNG")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
