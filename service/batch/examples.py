"""Pictures of a run that its contact sheet shows."""

import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebseg_client.drawing import overlay
from model.errors import PictureError
from service.batch.listing import Item
from service.batch.reading import UnreadableError, content_of, most_bytes
from service.batch.rows import Row
from service.errors import ServiceError
from service.segmentation.colors import class_colors, to_hex
from service.segmentation.decode import decode
from service.segmentation.sheet import SheetEntry


def example(
    shard: Sequence[Item], rows: Sequence[Row], *, max_pixels: int, frame: int | None = None
) -> SheetEntry | None:
    """The first picture of a shard that was segmented, beside its overlay.

    None if there is none, or none that can still be read.
    """
    for item, row in zip(shard, rows, strict=True):
        if row["error"] is not None or row["label_map"] is None:
            continue
        try:
            content = content_of(item, most_bytes(max_pixels))
            picture = Image.fromarray(decode(content, max_pixels=max_pixels, frame=frame))
        except (UnreadableError, PictureError, ServiceError):
            continue  # it was there when it was segmented
        with Image.open(io.BytesIO(row["label_map"])) as mask:
            return _entry(picture, mask, row)
    return None


def map_colors(mask: Image.Image, count: int) -> NDArray[np.uint8]:
    """Colours of the classes of a label map, RGB, uint8 [count, 3]; one of 16 bits has none of its own."""
    palette = mask.getpalette("RGB")
    if palette is None:
        return class_colors([None] * count)
    return np.asarray(palette, np.uint8).reshape(-1, 3)[1 : count + 1]


def _entry(picture: Image.Image, mask: Image.Image, row: Row) -> SheetEntry:
    names = row["classes"]
    picture = picture.resize(mask.size, Image.Resampling.BILINEAR)
    labels, colors = np.asarray(mask).astype(np.uint16), map_colors(mask, len(names))
    shares = np.bincount(labels.ravel(), minlength=len(names) + 1)[1:] / labels.size
    classes = [
        (name, to_hex(color), float(share)) for name, color, share in zip(names, colors, shares, strict=True)
    ]
    over = Image.fromarray(overlay(np.asarray(picture), labels, colors, names=names))
    return SheetEntry.of(os.path.basename(row["id"]), picture, over, classes)
