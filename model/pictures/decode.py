"""Bytes to a checked picture: RGB, uint8 [H, W, 3] in sRGB, the way up it was taken.

The one way in which training and the service read pictures. The first bytes tell the format, never a file's
name or a header's word. Size is read from the picture's header and checked before anything of that size is
allocated.
"""

import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, ImageFile, ImageOps, TiffImagePlugin, WebPImagePlugin

from model.errors import (
    PictureError,
    PictureFileError,
    PictureFormatError,
    PictureFrameError,
    PictureSizeError,
)
from model.pictures.coded_colors import CodedColors, coded_colors
from model.pictures.colors import in_srgb
from model.pictures.formats import FORMATS, Opener, opener_of
from model.pictures.heif import HeifError, check_sizes
from model.pictures.mending import mended
from model.pictures.tiff_bands import FULL, sampled

_PLAYED = frozenset({"GIF", "PNG", "WEBP"})  # formats whose frames are made of those before them
_MOST_PLAYED = 200_000_000  # pixels of these, some seconds of work
_SUBFILE_TYPE = 254  # a tag of TIFF 6.0, whose lowest bit says that a page is another one made smaller
_PADDED = 1 << 16  # pixels of a block that codecs pad the smallest pictures to
LOG = logging.getLogger(__name__)
_SHORTAGE = "out of memory"  # of what Pillow's decoders in C call their status -9
Remark = Callable[[str], None]


def settle_warnings() -> None:
    """Makes Pillow's alarm about bombs an error, and its many words about odd files silent.

    To be called once a process. Python keeps every warning that it has shown, and their text is the
    sender's.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # as many pictures are decoded at a time as there are cores
    pillow_heif.options.DECODE_THREADS = 1


def decode(
    data: bytes,
    *,
    max_pixels: int,
    frame: int | None = None,
    upright: bool = True,
    accept: Callable[[tuple[int, int]], None] = lambda size: None,
    remark: Remark = lambda text: None,
) -> NDArray[np.uint8]:
    """Decodes a picture.

    Colours go to sRGB by the embedded profile, or the numbers that PNG, AVIF and HEIC have in its place.
    16-bit grey is scaled to 8 bits; whole numbers of 32 bits and floats are scaled by the range that they
    use; alpha is laid on white.

    Args:
        data: the file's bytes.
        max_pixels: larger pictures are refused by their header.
        frame: of an animation, or page of a document, from 0; if left out the first, or HEIC's main picture.
        upright: whether it is turned as its EXIF data says; else it stays as it is stored;
            JPEG XL is turned by its decoder in any case.
        accept: gets rows and columns, as they are stored, before any pixel is decoded; what it raises
            passes.
        remark: gets, in a sentence, what was left out of account.

    Returns:
        RGB, uint8 [H, W, 3], C-contiguous, writable.

    Raises:
        PictureFormatError: not one of `formats.FORMATS`.
        PictureSizeError: above `max_pixels`.
        PictureFileError: empty, broken or cut short.
        PictureFrameError: there is no such frame, or it is too far away.
        MemoryError: memory ran out.
    """
    if not data:
        raise PictureFileError("the image is empty")
    opener = opener_of(data)
    asked: list[tuple[int, int]] = []

    def accept_once(size: tuple[int, int]) -> None:
        if not asked:
            asked.append(size)
            accept(size)

    how = _How(max_pixels, frame, upright, accept_once, remark)
    with _reading():
        try:
            return _decoded(opener, data, how)
        except (_AcceptError, PictureError, HeifError, MemoryError):
            raise
        except Exception as error:
            if opener is TiffImagePlugin.TiffImageFile and isinstance(error, SyntaxError):
                return _from_bands(data, how)  # "unknown pixel mode", or a broken directory
            again = mended(data, error)
            if again is None:
                raise
        return _decoded(opener, again.data, how, again.profile)


def from_pillow(
    image: Image.Image, *, max_pixels: int, remark: Remark = lambda text: None
) -> NDArray[np.uint8]:
    """The pixels of an opened picture, as `decode` gives them; the picture stays as it is.

    Raises:
        PictureSizeError: above `max_pixels`.
        PictureFileError: its file is broken, cut short or closed.
        MemoryError: memory ran out.
    """
    _check_size(image.size, max_pixels)
    try:
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception as error:  # see `_turn_upright`; broken pixels fail again
            if _is_shortage(error):
                raise
            upright = image.copy()
        return _rgb(upright, remark, coded_colors(image))
    except Exception as error:
        if _is_shortage(error):
            raise MemoryError from None
        raise PictureFileError(f"the image is broken, cut short or closed: {error}"[:300]) from None


class _AcceptError(Exception):
    """Wraps what the caller's `accept` raised, which is no fault of the file."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error


@contextmanager
def _reading() -> Iterator[None]:
    """Raises one of ours in the place of whatever a file makes Pillow raise."""
    try:
        yield
    except _AcceptError as passing:
        raise passing.error from None
    except PictureError:
        raise
    except HeifError as error:
        raise PictureFileError(f"the image cannot be read: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureSizeError(f"the image is too large: {error}") from None
    # A broken file makes the plug-ins raise nearly anything: SyntaxError, struct.error, EOFError, OSError,
    # zlib.error, ValueError, IndexError, and so on. All of them are the file's fault.
    except Exception as error:
        if _is_shortage(error):
            raise MemoryError from None
        LOG.debug("an image cannot be decoded", exc_info=True)
        reason = f": {error}"[:200] if str(error) else ""
        raise PictureFileError(f"the image is broken or cut short{reason}") from None


@dataclass(frozen=True, slots=True)
class _How:
    """Arguments of `decode`."""

    max_pixels: int
    frame: int | None
    upright: bool
    accept: Callable[[tuple[int, int]], None]
    remark: Remark


def _decoded(opener: Opener, data: bytes, how: _How, profile: bytes | None = None) -> NDArray[np.uint8]:
    """The picture of a file; `profile` is its own, where it was taken out."""
    if opener in (AvifImagePlugin.AvifImageFile, pillow_heif.HeifImageFile):
        check_sizes(data, lambda size: _check_coded(size, how.max_pixels))
    if opener is WebPImagePlugin.WebPImageFile:
        # this plug-in allocates the whole picture when it opens it
        _check_size(_webp_size(data), how.max_pixels)
    with opener(BytesIO(data)) as image:
        _check_size(image.size, how.max_pixels)
        if how.frame is not None:
            _go_to(image, how.frame, how.max_pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image)
        try:
            how.accept((image.height, image.width))
        except Exception as error:
            raise _AcceptError(error) from None
        image.load()
        coded = coded_colors(image, data)
        if profile is not None:
            image.info["icc_profile"] = profile
        if how.upright:
            _turn_upright(image)
        return _rgb(image, how.remark, coded)


def _from_bands(data: bytes, how: _How) -> NDArray[np.uint8]:
    """A TIFF whose samples Pillow has no mode for."""
    tiff = sampled(data, how.frame)
    _check_size(tiff.size, how.max_pixels)
    tiff.check(how.max_pixels)
    width, height = tiff.size
    try:
        how.accept((height, width))
    except Exception as error:
        raise _AcceptError(error) from None
    how.remark(tiff.remark())
    planes = tiff.opened()
    bounds = [FULL.get(tiff.type) or _range(_finite(block)) for block in tiff.blocks(planes)]
    least, most = min(low for low, _ in bounds), max(high for _, high in bounds)
    pixels = np.empty((height, width, 3), np.uint8)
    top = 0
    for block in tiff.blocks(planes):
        pixels[top : top + len(block)] = _scaled(_finite(block), least, most)
        top += len(block)
    return pixels


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raises for what Pillow opens as something else: a raw picture's preview, the first of several bands."""
    tags = image.tag_v2
    if tags.get(_SUBFILE_TYPE, 0) & 1 and TiffImagePlugin.SUBIFD in tags:
        raise PictureFormatError(f"this is a raw image of a camera; images are taken as {FORMATS}")
    if len(image.getbands()) == 1 and tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > 2:
        raise SyntaxError("bands were left out")


def _go_to(image: ImageFile.ImageFile, frame: int, max_pixels: int) -> None:
    """Goes to a frame; the next thing that is loaded is that one."""
    if image.format in _PLAYED and frame * image.width * image.height > _MOST_PLAYED:
        size = f"{image.width} x {image.height}"
        raise PictureFrameError(
            f"frame {frame} of {size} pixels is too far away: those before it are decoded, too"
        )
    try:
        image.seek(frame)
    except EOFError:
        raise PictureFrameError(f"the image has no frame {frame}; they count from 0") from None
    _check_size(image.size, max_pixels)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PictureFileError(f"the image has no pixels: its header says {width} x {height}")
    if width * height > max_pixels:
        raise PictureSizeError(
            f"the image has {width} x {height} = {width * height} pixels, at most {max_pixels} are taken; "
            "scale it down"
        )


def _check_coded(size: tuple[int, int], max_pixels: int) -> None:
    """Raises PictureSizeError for a part of a file that has more pixels than padding explains."""
    width, height = size
    if width * height > max(2 * max_pixels, _PADDED):
        raise PictureSizeError(
            f"a part of the image has {width} x {height} = {width * height} pixels; the whole may have "
            f"{max_pixels}"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # broken EXIF raises as freely as broken pixels; the picture itself is sound
        if _is_shortage(error):
            raise
        LOG.debug("EXIF data cannot be read, the image stays as it is stored", exc_info=True)


def _is_shortage(error: Exception) -> bool:
    """Whether memory ran out; Pillow's decoders say so by an OSError with these words."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and _SHORTAGE in str(error))


def _rgb(image: Image.Image, remark: Remark, coded: CodedColors | None) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)
        return _grey_to_rgb(_rounded(grey.astype(np.float32), 1 / 257))
    if image.mode in ("I", "F"):
        return _grey_to_rgb(_to_bytes_range(np.asarray(image).astype(np.float32)))
    image = in_srgb(image, remark, coded)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    # a copy, because Pillow's own buffer is read-only, and torch does not take that
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _to_bytes_range(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales to 0..255: fractions, bytes and 16-bit numbers by their range, all else from least to most."""
    grey = _finite(grey)
    return _scaled(grey, *_range(grey))


def _finite(numbers: NDArray[Any]) -> NDArray[np.float32]:
    return np.nan_to_num(numbers.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _range(numbers: NDArray[np.float32]) -> tuple[float, float]:
    return float(numbers.min()), float(numbers.max())


def _scaled(numbers: NDArray[np.float32], least: float, most: float) -> NDArray[np.float32]:
    """To 0..255, by the range of which the numbers are a part."""
    if least >= 0:
        for full in (1.0, 255.0, 65535.0):
            if most <= full:
                return _rounded(numbers, 255 / full)
    # halves first: the span of two floats may be more than a float holds
    span = most / 2 - least / 2
    return _rounded(np.divide(numbers / 2 - least / 2, span or 1, dtype=np.float32), 255)


def _rounded(grey: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    return np.round(grey * np.float32(factor))


def _grey_to_rgb(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
