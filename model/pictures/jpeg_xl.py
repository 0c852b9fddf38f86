"""JPEG XL: what a file's header says, by our own reading, and its pixels, by libjxl in another process.

The header (ISO/IEC 18181-1, annex D) tells the picture's size, and not how much its decoder computes: frames
that are never shown may be larger, and a decoder cannot be told when to stop. A process can: it may take as
much memory and time as pictures of that size need. The decoder is the package pyjpegxl, of the extra `jxl`.
"""

import errno
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile

from model.errors import PictureFileError, PictureFormatError

SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # of a codestream, and of a file of boxes
LONGEST_SIGNATURE = max(map(len, SIGNATURES))
BASE_BYTES, PIXEL_BYTES = 96 << 20, 40  # of the process: Python and NumPy, and two frames of four channels
_BASE_SECONDS, _PIXELS_A_SECOND = 10, 500_000  # of a processor; libjxl does five times as many
_HEADER = 4096  # bytes that the part of it that is read here never exceeds
_MOST_BOXES = 1000
_ALPHA, _SPOT, _CFA = 0, 2, 5  # kinds of further channels
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_PATIENCE = 4  # times the processor's seconds, by the clock: who waits for memory or a disk uses no processor
_PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}  # by mode
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_BROKEN = "the image is broken or cut short: "


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of it.

    Attributes:
        size: width and height as they are stored.
        orientation: 1 to 8, as of EXIF, by which libjxl turns the picture.
        animated: whether it has frames of a time.
        premultiplied: whether colours are those that alpha has made.
    """

    size: tuple[int, int]
    orientation: int
    animated: bool
    premultiplied: bool


def read_header(data: bytes) -> Header:
    """The header of a file.

    Raises:
        PictureFileError: it is broken or cut short.
    """
    bits = _LowestFirst(_codestream(data)[2:])
    size = _size(bits)
    if bits.take(1):  # all as usual
        return Header(size, 1, animated=False, premultiplied=False)
    orientation, animated = 1, False
    if bits.take(1):
        orientation = 1 + bits.take(3)
        if bits.take(1):
            _size(bits)  # that it is meant to be shown in
        if bits.take(1):
            _preview(bits)
        animated = bool(bits.take(1))
        if animated:
            bits.number((0, 100), (0, 1000), (10, 1), (30, 1))
            bits.number((0, 1), (0, 1001), (8, 1), (10, 1))
            bits.number((0, 0), (3, 0), (16, 0), (32, 0))
            bits.take(1)
    _depth(bits)
    bits.take(1)
    channels = bits.number((0, 0), (0, 1), (4, 2), (12, 1))
    premultiplied = [_is_premultiplied(bits) for _ in range(channels)]
    return Header(size, orientation, animated, any(premultiplied))


def bytes_apart(start: bytes, pixels: int) -> int:
    """What decoding a picture of so many pixels takes in another process; nothing for other formats.

    Args:
        start: the file's first bytes, `LONGEST_SIGNATURE` at least.
        pixels: of the picture.
    """
    return BASE_BYTES + PIXEL_BYTES * pixels if start.startswith(SIGNATURES) else 0


class JpegXlImageFile(ImageFile.ImageFile):
    """A plug-in that reads the header when it opens a file, and decodes when pixels are wanted."""

    format = "JXL"
    _waiting: bytes | None = None  # the file, until it is decoded

    def _open(self) -> None:
        if importlib.util.find_spec("pyjpegxl") is None:
            raise PictureFormatError(
                "this is a JPEG XL image, which takes the package pyjpegxl: `pip install ebseg[jxl]`"
            )
        assert self.fp is not None
        self._waiting = self.fp.read()
        self._header = read_header(self._waiting)
        if self._header.animated:
            raise PictureFileError(
                "the image is an animation in JPEG XL, of which still images are taken; send it as GIF, WebP "
                "or PNG, which are taken by `frame`"
            )
        self._size, self._mode = self._header.size, "RGB"

    def load(self) -> Any:
        """Decodes the picture, turned upright as every decoder of this format does."""
        if self._waiting is not None:
            data, self._waiting = self._waiting, None
            width, height = self._header.size
            about, pixels = _decoded_apart(data, width * height)
            turned = (height, width) if self._header.orientation > 4 else (width, height)
            if (about["width"], about["height"]) != turned:
                raise PictureFileError(f"{_BROKEN}its pixels are not of its header's size")
            self._size, self._mode = turned, _MODES[about["channels"]]
            raw = _PREMULTIPLIED.get(self._mode, self._mode) if self._header.premultiplied else self._mode
            image = Image.frombytes(raw, turned, pixels)
            self.im = (image if raw == self._mode else image.convert(self._mode)).im
            self.info["icc_profile"] = bytes.fromhex(about["profile"])
        return Image.Image.load(self)


def _decoded_apart(data: bytes, pixels: int) -> tuple[dict[str, Any], memoryview]:
    """What the decoder says of a picture, and its pixels; of at most so many.

    Raises:
        PictureFileError: the file is broken, or asks for more than a picture of its size needs.
        MemoryError: there is no room for another process.
    """
    most = BASE_BYTES + PIXEL_BYTES * pixels
    seconds = _BASE_SECONDS + pixels // _PIXELS_A_SECOND
    spec = importlib.util.find_spec("pyjpegxl")
    assert spec is not None
    assert spec.origin is not None
    program = Path(__file__).with_name("jpeg_xl_process.py")
    words = [str(program), str(Path(spec.origin).parents[1]), str(most), str(seconds)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", *words],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"OPENBLAS_NUM_THREADS": "1"},
            check=False,
            timeout=_PATIENCE * seconds,
        )
    except subprocess.TimeoutExpired:
        raise PictureFileError(f"{_BROKEN}its decoder took more than {_PATIENCE * seconds} s") from None
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.EAGAIN):
            raise MemoryError from None
        raise
    end = max(0, done.stdout.find(b"\n"))
    head, rest = done.stdout[:end], memoryview(done.stdout)[end + 1 :]
    about: dict[str, Any] = json.loads(head) if head else {"error": "its decoder has ended early"}
    if "missing" in about:
        raise PictureFormatError(f"JPEG XL cannot be decoded here: {about['missing']}")
    if "error" in about or done.returncode:
        asked = f"or asks for more than {most >> 20} MiB or {seconds} s"
        reason = about.get("error", "its decoder has ended early")
        raise PictureFileError(f"the image is broken or cut short, {asked}: {reason}"[:300])
    return about, rest


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream."""
    if data.startswith(SIGNATURES[0]):
        return data[:_HEADER]
    parts = b""
    for kind, content in _boxes(data):
        if kind == b"jxlc":
            return content[:_HEADER]
        if kind == b"jxlp":  # a part, behind its number
            parts += content[4:_HEADER]
        if len(parts) >= _HEADER:
            break
    if not parts.startswith(SIGNATURES[0]):
        raise PictureFileError(f"{_BROKEN}it has no codestream")
    return parts


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and contents of boxes (ISO/IEC 18181-2); the last may be cut short."""
    at = 0
    for _ in range(_MOST_BOXES):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(data)
        if len(kind) < 4 or end < at + head:
            return
        yield kind, data[at + head : min(end, at + head + _HEADER)]
        at = end


class _LowestFirst:
    """Bits of bytes, the lowest first (annex B)."""

    def __init__(self, data: bytes):
        self._number = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise PictureFileError(f"{_BROKEN}its header ends early")
        taken = self._number & (1 << count) - 1
        self._number >>= count
        self._left -= count
        return taken

    def number(self, *choices: tuple[int, int]) -> int:
        """One of four ways of so many bits, with what is added to them."""
        count, more = choices[self.take(2)]
        return self.take(count) + more

    def enum(self) -> int:
        return self.number((0, 0), (0, 1), (4, 2), (6, 18))


def _size(bits: _LowestFirst) -> tuple[int, int]:
    """Width and height."""
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.number((9, 1), (13, 1), (18, 1), (30, 1))

    return _with_ratio(bits, side)


def _preview(bits: _LowestFirst) -> None:
    small = bits.take(1)

    def side() -> int:
        if small:
            return 8 * bits.number((0, 16), (0, 32), (5, 1), (9, 33))
        return bits.number((6, 1), (8, 65), (10, 321), (12, 1345))

    _with_ratio(bits, side)


def _with_ratio(bits: _LowestFirst, side: Any) -> tuple[int, int]:
    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    wide, high = _RATIOS[ratio - 1]
    return height * wide // high, height


def _depth(bits: _LowestFirst) -> None:
    if bits.take(1):  # floats
        bits.number((0, 32), (0, 16), (0, 24), (6, 1))
        bits.take(4)
    else:
        bits.number((0, 8), (0, 10), (0, 12), (6, 1))


def _is_premultiplied(bits: _LowestFirst) -> bool:
    """Whether a further channel is alpha that colours are multiplied by."""
    if bits.take(1):  # alpha as usual
        return False
    kind = bits.enum()
    _depth(bits)
    bits.number((0, 0), (0, 3), (0, 4), (3, 1))
    bits.take(8 * bits.number((0, 0), (4, 0), (5, 16), (10, 48)))  # its name
    if kind == _ALPHA:
        return bool(bits.take(1))
    if kind == _SPOT:
        bits.take(4 * 16)
    elif kind == _CFA:
        bits.number((0, 1), (2, 0), (4, 3), (8, 19))
    return False
