"""TIFFs whose samples Pillow has no mode for: five bands of 16 bits, RGB in floats, and the like.

Their strips or tiles are the bytes of samples. So Pillow, and libtiff within it, reads the same data as a
grey picture of bytes, by a directory of our own, with its checks and its decompression; the samples are put
together here. TIFF 6.0, and Adobe's technical note 3 for the predictor of floats.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from model.errors import PictureFileError, PictureFormatError, PictureFrameError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _FORMAT = 322, 323, 324, 325, 339
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of a directory's fields that hold whole numbers
_LOSSLESS = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})  # none, LZW, deflate, PackBits, LZMA, Zstandard
_COLORS = {0: "grey", 1: "grey", 2: "RGB"}
_OTHER_COLORS = {3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*", 32803: "a camera's raw pixels"}
_FORMATS = {1: "u", 2: "i", 3: "f"}
_KINDS = {"u": "whole numbers", "i": "signed whole numbers", "f": "floats"}
_TYPES = frozenset({"u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"})
FULL = {"u1": (0.0, 255.0), "u2": (0.0, 65_535.0)}  # ranges that are known, of types of samples
_MOST_FIELDS = 4_096
_MOST_BYTES = 10  # of samples for each pixel that there may be
_BLOCK = 1 << 20  # pixels put together at a time


class BandsRemark(str):
    """A remark on the bands of a picture."""


@dataclass(frozen=True, slots=True)
class SampledTiff:
    """A TIFF's picture as its directory describes it.

    Attributes:
        data: the file.
        fields: whole numbers by tag.
        order: "<" or ">".
        wide: whether it is a BigTIFF.
    """

    data: bytes
    fields: dict[int, tuple[int, ...]]
    order: str
    wide: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._one(_WIDTH, 0), self._one(_HEIGHT, 0)

    @property
    def bands(self) -> int:
        """Samples of a pixel."""
        return self._one(_SAMPLES, 1)

    @property
    def type(self) -> str:
        """Of a sample, as NumPy names it without byte order."""
        bits, formats = set(self.fields.get(_BITS, (1,))), set(self.fields.get(_FORMAT, (1,)))
        if len(bits) > 1 or len(formats) > 1 or not formats <= _FORMATS.keys() or min(bits) % 8:
            return ""
        return f"{_FORMATS[min(formats)]}{min(bits) // 8}"

    def check(self, max_pixels: int) -> None:
        """Raises PictureFormatError, which says what it is, if the samples cannot be put together."""
        width, height = self.size
        color, kind = self._one(_PHOTOMETRIC, 1), self.type
        depth = "/".join(map(str, sorted(set(self.fields.get(_BITS, (1,))))))
        what = f"a TIFF of {self.bands} bands of {depth} bits, {_KINDS.get(kind[:1], 'of several kinds')}"
        if color not in _COLORS:
            others = _OTHER_COLORS.get(color, "other colours")
            raise PictureFormatError(f"this is {what}, as {others}; {_TAKEN}")
        if kind not in _TYPES or self._one(_PREDICTOR, 1) not in (1, 2, 3):
            raise PictureFormatError(f"this is {what}; {_TAKEN}")
        if self._one(_COMPRESSION, 1) not in _LOSSLESS or self._one(_FILL_ORDER, 1) != 1:
            raise PictureFormatError(f"this is {what}, compressed by a way that is not taken; {_TAKEN}")
        if self._row_bytes() // max(1, width) * width * height > _MOST_BYTES * max_pixels:
            raise PictureFormatError(
                f"this is {what}, which at {width} x {height} pixels are more bytes than are taken"
            )

    def remark(self) -> BandsRemark:
        """What was made of it."""
        bands = "its first three bands were taken as red, green and blue"
        if self.bands < 3:
            bands = "its first band was taken as grey"
        scaled = "" if self.type in FULL else ", scaled by the range that they use"
        kind = f"{8 * int(self.type[1])}-bit {_KINDS[self.type[0]]}"
        return BandsRemark(f"the image is a TIFF of {self.bands} bands of {kind}: {bands}{scaled}")

    def opened(self) -> list[Image.Image]:
        """The bytes of all bands, or of each one that is taken where they lie apart, as grey pictures."""
        planes: Sequence[int | None] = range(self._taken) if self._separate else [None]
        images = [TiffImagePlugin.TiffImageFile(BytesIO(self._as_grey(plane))) for plane in planes]
        for image in images:
            image.load()
        return list(images)

    def blocks(self, planes: Sequence[Image.Image]) -> Iterator[NDArray[Any]]:
        """Samples of the bands that are taken, in blocks of rows, [rows, W, 1 or 3]; of `opened`."""
        width, height = self.size
        rows = max(1, _BLOCK // width)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            box = (0, top, planes[0].width, top + count)
            bands = 1 if self._separate else self.bands
            parts = [self._samples(np.asarray(plane.crop(box)), bands) for plane in planes]
            yield np.concatenate(parts, 2)[:, :width, : self._taken]

    def _samples(self, raw: NDArray[np.uint8], bands: int) -> NDArray[Any]:
        """Bytes of rows [rows, bytes] to samples [rows, padded width, bands]."""
        kind, predictor = np.dtype(self.order + self.type), self._one(_PREDICTOR, 1)
        across = self._tile_width() or self.size[0]
        tiles = raw.reshape(len(raw), -1, across * bands * kind.itemsize)
        if predictor == 3:
            summed = tiles.reshape(*tiles.shape[:2], -1, bands).cumsum(2, dtype=np.uint8)
            by_byte = summed.reshape(*tiles.shape[:2], kind.itemsize, -1).swapaxes(2, 3)  # the highest first
            samples = np.ascontiguousarray(by_byte).view(f">{self.type}")
        else:
            samples = tiles.view(kind)
        samples = samples.reshape(len(raw), -1, across, bands).astype(self.type)
        if predictor == 2:
            whole = samples.view(f"u{kind.itemsize}")
            samples = whole.cumsum(2, dtype=whole.dtype).view(self.type)
        return samples.reshape(len(raw), -1, bands)

    def _as_grey(self, plane: int | None) -> bytes:
        width, height = self.size
        across, down = self._tile_width(), self._one(_TILE_HEIGHT, 0)
        padded = -(-width // across) * across if across else width
        bands = self.bands if plane is None else 1
        wide = bands * np.dtype(self.type).itemsize
        offsets, counts = (_TILES, _TILE_BYTES) if across else (_STRIPS, _STRIP_BYTES)
        rows = min(height, self._one(_STRIP_ROWS, height) or height)
        parts = -(-padded // across) * -(-height // down) if across else -(-height // rows)
        mine = slice(0, parts) if plane is None else slice(plane * parts, (plane + 1) * parts)
        fields: dict[int, tuple[int, ...]] = {
            _WIDTH: (padded * wide,),
            _HEIGHT: (height,),
            _BITS: (8,),
            _COMPRESSION: (self._one(_COMPRESSION, 1),),
            _PHOTOMETRIC: (1,),
            _SAMPLES: (1,),
            offsets: self.fields.get(offsets, ())[mine],
            counts: self.fields.get(counts, ())[mine],
        }
        if len(fields[offsets]) != parts or len(fields[counts]) != parts:
            raise PictureFileError("the image is broken: it lacks strips or tiles")
        fields |= {_TILE_WIDTH: (across * wide,), _TILE_HEIGHT: (down,)} if across else {_STRIP_ROWS: (rows,)}
        return _with_directory(self.data, fields, self.order, self.wide)

    @property
    def _taken(self) -> int:
        return 3 if self.bands >= 3 else 1

    @property
    def _separate(self) -> bool:
        """Whether each band lies by itself."""
        return self._one(_PLANAR, 1) == 2

    def _tile_width(self) -> int:
        return self._one(_TILE_WIDTH, 0)

    def _row_bytes(self) -> int:
        return self.size[0] * self.bands * np.dtype(self.type).itemsize

    def _one(self, tag: int, default: int) -> int:
        return self.fields[tag][0] if self.fields.get(tag) else default


_TAKEN = "of such, grey and RGB of 8, 16 or 32 bits, losslessly compressed, are taken"


def sampled(data: bytes, frame: int | None) -> SampledTiff:
    """A TIFF's directory.

    Args:
        data: the file.
        frame: which page, from 0.

    Raises:
        PictureFileError, PictureFrameError: it is broken, or has no such page.
    """
    order = "<" if data[:2] == b"II" else ">"
    wide = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", data, 8 if wide else 4)
        for _ in range(frame or 0):
            at = _next_directory(data, at, order, wide)
            if not at:
                raise PictureFrameError(f"the image has no frame {frame}; they count from 0")
        return SampledTiff(data, dict(_fields(data, at, order, wide)), order, wide)
    except (struct.error, OverflowError):
        raise PictureFileError("the image is broken or cut short: its directory is") from None


def _fields(data: bytes, at: int, order: str, wide: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    count_form, entry_form, inline = ("Q", "HHQ8s", 8) if wide else ("H", "HHI4s", 4)
    (count,) = struct.unpack_from(order + count_form, data, at)
    at += struct.calcsize(order + count_form)
    for _ in range(min(count, _MOST_FIELDS)):
        tag, kind, number, value = struct.unpack_from(order + entry_form, data, at)
        at += struct.calcsize(order + entry_form)
        form = _NUMBERS.get(kind)
        if form is None:
            continue
        if number * struct.calcsize(form) > len(data):
            raise PictureFileError("the image is broken: a field is longer than the file")
        if number * struct.calcsize(f"={form}") <= inline:
            yield tag, struct.unpack_from(f"{order}{number}{form}", value)
        else:
            (place,) = struct.unpack(order + ("Q" if wide else "I"), value)
            yield tag, struct.unpack_from(f"{order}{number}{form}", data, place)


def _next_directory(data: bytes, at: int, order: str, wide: bool) -> int:
    (count,) = struct.unpack_from(order + ("Q" if wide else "H"), data, at)
    at += 8 + 20 * count if wide else 2 + 12 * count
    following: int = struct.unpack_from(order + ("Q" if wide else "I"), data, at)[0]
    return following


def _with_directory(data: bytes, fields: dict[int, tuple[int, ...]], order: str, wide: bool) -> bytes:
    """The file with a directory of these fields, behind its own data."""
    number, entry, inline = ("Q", "HHQ", 8) if wide else ("I", "HHI", 4)
    kind = {"Q": 16, "I": 4}[number]
    start = len(data) + len(data) % 2
    arrays = start + (8 if wide else 2) + len(fields) * (20 if wide else 12) + inline
    directory, behind = struct.pack(order + ("Q" if wide else "H"), len(fields)), b""
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(values)}{number}", *values)
        if len(packed) > inline:
            place, behind = arrays + len(behind), behind + packed
            packed = struct.pack(order + number, place)
        directory += struct.pack(order + entry, tag, kind, len(values)) + packed
    head = data[: 8 if wide else 4] + struct.pack(order + number, start)
    return head + data[len(head) :] + bytes(start - len(data)) + directory + bytes(inline) + behind
