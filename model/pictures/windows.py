"""Pictures by parts: windows of a TIFF that can be read so, or a picture that was decoded once.

Windows need the package rasterio, of the extra `geo`. They are taken of plain TIFFs alone, whose pixels are
what `decode` gives: 8-bit grey or RGB, upright, without a colour profile, alpha or a palette.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, TiffImagePlugin

from model.errors import PictureFileError, PictureSizeError

Part = tuple[slice, slice]
_GREY, _RGB, _YCBCR = 1, 2, 6  # photometric interpretations of TIFF 6.0
_PLAIN = {_GREY: (8,), _RGB: (8, 8, 8), _YCBCR: (8, 8, 8)}  # and bits of their samples
_ICC_PROFILE = 34675
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class PictureParts:
    """A picture, as far as it is asked for.

    Attributes:
        size: rows and columns.
        read: gives the RGB pixels, uint8 [h, w, 3], of rows and columns.
    """

    size: tuple[int, int]
    read: Callable[[Part], NDArray[np.uint8]]

    @classmethod
    def of(cls, picture: NDArray[np.uint8]) -> "PictureParts":
        """Of a picture [H, W, 3] that is there."""
        return cls((picture.shape[0], picture.shape[1]), picture.__getitem__)


@contextmanager
def windows(path: Path, max_pixels: int) -> Iterator[PictureParts | None]:
    """A TIFF by windows; None where it has to be decoded as a whole.

    Raises:
        PictureSizeError: above `max_pixels`.
        PictureFileError: a window cannot be read.
    """
    rasterio = rasterio_package()
    if rasterio is None or not _is_plain(path):
        yield None
        return
    with rasterio.Env(GDAL_CACHEMAX=64, GTIFF_IGNORE_READ_ERRORS=False):
        try:
            file = rasterio.open(path, driver="GTiff")
        except rasterio.errors.RasterioError:
            yield None  # decoding says what is wrong
            return
        with file:
            if file.height * file.width > max_pixels:
                raise PictureSizeError(
                    f"the image has {file.width} x {file.height} = {file.width * file.height} pixels, at "
                    f"most {max_pixels} are taken"
                )

            def read(part: Part) -> NDArray[np.uint8]:
                rows, columns = part
                window = ((rows.start, rows.stop), (columns.start, columns.stop))
                try:
                    bands = file.read(indexes=list(range(1, file.count + 1)), window=window)
                except rasterio.errors.RasterioError as error:
                    raise PictureFileError(f"the image is broken or cut short: {error}"[:300]) from None
                pixels = np.repeat(bands, 3, 0) if len(bands) == 1 else bands
                return np.ascontiguousarray(pixels.transpose(1, 2, 0))

            yield PictureParts((file.height, file.width), read)


def rasterio_package() -> Any:
    """The package rasterio, which says nothing of pictures without a georeference; None if it is missing."""
    try:
        import rasterio
        import rasterio.errors
        import rasterio.warp
    except ModuleNotFoundError:
        return None
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF by its first bytes."""
    with path.open("rb") as file:
        return file.read(4) in _SIGNATURES


def _is_plain(path: Path) -> bool:
    if not is_tiff(path):
        return False
    with path.open("rb") as file:
        try:
            with TiffImagePlugin.TiffImageFile(file) as image:
                tags = image.tag_v2
                photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
                return (
                    photometric in _PLAIN
                    and tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, ())) == _PLAIN[photometric]
                    and tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 1
                    and tags.get(ExifTags.Base.Orientation, 1) == 1
                    and _ICC_PROFILE not in tags
                )
        except Exception:  # as many as there are kinds of broken files; decoding says what is wrong
            return False
