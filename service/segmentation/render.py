"""Label map to pictures: PNG and WebP files; `ebseg_client.drawing` lays the mask over the picture.

Label maps are uint16 [H, W]; 0 is "other", k is the k-th class that is not ignored. NumPy and Pillow do it
all, for `ebseg segment --url` draws with them alone.
"""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ebseg_client.drawing import OTHER

Labels = NDArray[np.uint16]
BLOCK = 1 << 20  # pixels worked on at a time
MOST_PALETTE_CLASSES = 255  # a palette has 256 entries, and one is "other"
WEBP_LONGEST = 16383  # pixels of a side that WebP can hold
_IMAGE_DESCRIPTION = 270  # a tag of TIFF 6.0
QUICK = 1  # zlib's level: photographs hardly get smaller by more, and take several times as long


def label_png(labels: Labels, names: Sequence[str], colors: NDArray[np.uint8]) -> bytes:
    """The label map as PNG, whose pixel values are the labels.

    Up to 255 classes it is a palette picture in the classes' colours, beyond that 16-bit grey. The
    text chunk `classes` holds a JSON list of names by label; its first entry is "other".
    """
    buffer = BytesIO()
    write_labels(buffer, "PNG", labels, names, colors)
    return buffer.getvalue()


def write_labels(
    target: IO[bytes],
    form: Literal["PNG", "TIFF"],
    labels: Labels,
    names: Sequence[str],
    colors: NDArray[np.uint8],
    tags: Mapping[int, Any] = MappingProxyType({}),
) -> None:
    """Writes what `label_png` gives, or the same as TIFF, which has the list in its `ImageDescription`.

    Args:
        target: a file; a large label map goes there piece by piece.
        form: of the file.
        labels: the label map; of uint8, as one that lies in a file may be, it is not copied.
        names, colors: of labels 1, 2, ...
        tags: further ones of a TIFF.
    """
    few = len(names) <= MOST_PALETTE_CLASSES
    kept = np.ascontiguousarray(labels, np.uint8 if few else np.uint16)
    size = (labels.shape[1], labels.shape[0])
    mode = "L" if few else "I;16"
    image = Image.frombuffer(mode, size, kept, "raw", mode, 0, 1)
    if few:
        image.putpalette([*OTHER, *colors.ravel().tolist()])
    if form == "PNG":
        chunk = PngImagePlugin.PngInfo()
        chunk.add_itxt("classes", json.dumps(["other", *names], ensure_ascii=False))
        image.save(target, "PNG", pnginfo=chunk)
    else:
        about = {_IMAGE_DESCRIPTION: json.dumps(["other", *names]), **tags}
        image.save(target, "TIFF", compression="tiff_adobe_deflate", tiffinfo=about)


def grey_png(shares: NDArray[np.float32]) -> bytes:
    """Numbers from 0 to 1, [H, W], as 8-bit grey PNG: 255 is 1."""
    grey = np.empty(shares.shape, np.uint8)
    rows = max(1, BLOCK // shares.shape[1])
    for top in range(0, len(grey), rows):  # what is in between has eight bytes a pixel
        grey[top : top + rows] = np.rint(shares[top : top + rows] * 255)
    return _saved(Image.fromarray(grey), "PNG", compress_level=QUICK)


def cutout_png(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bytes:
    """The picture's pixels where the mask is, as RGBA PNG; all others are transparent black.

    Args:
        picture: RGB, uint8 [H, W, 3].
        mask: [H, W].
    """
    layer = np.zeros((*mask.shape, 4), np.uint8)
    np.copyto(layer[..., :3], picture, where=mask[..., None])  # places by number would have 16 bytes a pixel
    np.copyto(layer[..., 3], 255, where=mask)
    return _saved(Image.fromarray(layer), "PNG", compress_level=QUICK)


def number_png(numbers: NDArray[np.int32]) -> bytes:
    """Numbers below 2^24, [H, W], as RGB PNG as panoptic pictures have them: R + 256 G + 65,536 B."""
    channels = np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
    return _saved(Image.fromarray(channels), "PNG", compress_level=QUICK)


def webp(picture: NDArray[np.uint8]) -> bytes:
    """RGB, uint8 [H, W, 3], as WebP; neither side above `WEBP_LONGEST`."""
    return _saved(Image.fromarray(picture), "WEBP", quality=85)


def png(image: Image.Image) -> bytes:
    """A picture as PNG."""
    return _saved(image, "PNG")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
