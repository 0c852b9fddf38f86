"""Pictures of data sets, read as the service reads those of its requests."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import PictureFileError
from model.pictures.decode import decode
from training.errors import DatasetError

MOST_PIXELS = 200_000_000  # of a picture; more is taken for a bomb
UPRIGHT, ORIENTATION = 1, 0x0112  # of EXIF's mark
LYING = range(5, 9)  # marks that turn a picture by a quarter


def read_picture(
    source: Path | bytes,
    where: object = None,
    *,
    upright: bool = True,
    remark: Callable[[str], None] = lambda text: None,
) -> NDArray[np.uint8]:
    """A picture as the service reads it, RGB [H, W, 3]: upright, in sRGB, transparency laid on white.

    Args:
        source: the file, or its content.
        where: what messages call it; without, the path.
        upright: whether it is turned as its orientation mark says; else it stays as it is stored.
        remark: gets what was left out of account.

    Raises:
        DatasetError: the file is missing, or cannot be read.
    """
    name = source if where is None else where
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        return decode(data, max_pixels=MOST_PIXELS, upright=upright, remark=remark)
    except FileNotFoundError:
        raise DatasetError(f"{name} is missing") from None
    except (OSError, PictureFileError) as error:
        raise DatasetError(f"{name} cannot be read: {error}") from None


def is_turned(source: Path | bytes) -> bool:
    """Whether a picture has an orientation mark (EXIF) that turns or mirrors it."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return bool(image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT)
    except Exception:  # no mark that could be read, as in `model.pictures.decode`
        return False


def is_wide(path: Path) -> bool:
    """Whether a picture is wider than high once it is upright; only its head is read.

    Raises:
        DatasetError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            mark = image.getexif().get(ORIENTATION, UPRIGHT)
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from None
    return height > width if mark in LYING else width > height
