"""Colours that a file tells by numbers instead of a profile (ITU-T H.273): as a profile of theirs (ICC.1)."""

import functools
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, PngImagePlugin

from model.pictures.heif import primary_colors
from model.pictures.mending import chunks

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_BT601 = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
# by number: x and y of red, green and blue, and of white (H.273, table 2)
_PRIMARIES = {
    1: (_BT709, _D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), _D65),
    6: (_BT601, _D65),
    7: (_BT601, _D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), _D65),
    11: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _DCI),
    12: (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), _D65),
    22: (((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), _D65),
}
# A number v is light ((a v + b) ** gamma from d on, c v below), as `gamma, a, b, c, d` (ICC.1, 10.18).
_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# by number (H.273, table 3); those of video (1, 6, 14, 15) are read by sRGB's curve, as screens do
_TRANSFERS = {
    1: _SRGB,
    4: (2.2, 1.0, 0.0, 0.0, 0.0),
    5: (2.8, 1.0, 0.0, 0.0, 0.0),
    6: _SRGB,
    8: (1.0, 1.0, 0.0, 0.0, 0.0),
    13: _SRGB,
    14: _SRGB,
    15: _SRGB,
}
_HDR = {16: "PQ", 18: "HLG"}
_D50 = np.array([0.9642, 1.0, 0.8249])  # white of the profile connection space
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class CodedColors:
    """Numbers of H.273.

    Attributes:
        primaries: of table 2.
        transfer: of table 3.
        full: whether black is 0 and white 255; else they are 16 and 235.
        first: whether they count more than a profile beside them.
    """

    primaries: int
    transfer: int
    full: bool = True
    first: bool = False

    @property
    def hdr(self) -> str | None:
        """The name of a curve whose light goes beyond white; None for others."""
        return _HDR.get(self.transfer)

    @property
    def known(self) -> bool:
        """Whether there are such colours; "unspecified" is none."""
        return self.primaries in _PRIMARIES and (self.transfer in _TRANSFERS or self.hdr is not None)


def coded_colors(image: Image.Image, data: bytes = b"") -> CodedColors | None:
    """What a picture's file tells; None if it tells nothing that is known.

    Args:
        image: opened, and at its frame.
        data: the file; without it only what the image was told when it was opened.
    """
    colors = None
    if isinstance(image, PngImagePlugin.PngImageFile):
        colors = _of_png(data)
    elif isinstance(image, AvifImagePlugin.AvifImageFile):
        numbers = primary_colors(data)
        colors = None if numbers is None else CodedColors(*numbers)
    elif nclx := image.info.get("nclx_profile"):
        colors = CodedColors(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    return colors if colors is not None and colors.known else None


def _of_png(data: bytes) -> CodedColors | None:
    """Of the chunk cICP (PNG specification, third edition, 11.3.2.6), which counts more than iCCP.

    But a profile says better than we do what is to become of light beyond white.
    """
    for kind, content, _ in chunks(data):
        if kind == b"cICP" and len(content) == 4 and content[2] == 0:
            return CodedColors(content[0], content[1], full=content[3] != 0, first=content[1] not in _HDR)
        if kind == b"IDAT":
            break
    return None


@functools.lru_cache(maxsize=32)
def coded_profile(colors: CodedColors) -> bytes | None:
    """The profile of known colours; None for those that are shown as sRGB.

    HDR's numbers are read by sRGB's curve.
    """
    curve = _SRGB if colors.hdr is not None else _TRANSFERS[colors.transfer]
    if colors.primaries == 1 and curve == _SRGB:
        return None
    columns = _to_d50(*_PRIMARIES[colors.primaries])
    parts = {
        b"desc": b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2, 28) + b"\0x",
        b"wtpt": _xyz(_D50),
    }
    for at, color in enumerate((b"r", b"g", b"b")):
        parts[color + b"XYZ"] = _xyz(columns[:, at])
        parts[color + b"TRC"] = b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *map(_fixed, curve))
    return _whole(parts)


def _to_d50(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> NDArray[np.float64]:
    """Light of red, green and blue to XYZ under D50 [3, 3], by Bradford's adaptation."""
    columns = np.stack([_from_xy(*one) for one in primaries], 1)
    source = _from_xy(*white)
    matrix = columns * np.linalg.solve(columns, source)
    adapted: NDArray[np.float64] = np.linalg.solve(
        _BRADFORD, np.diag((_BRADFORD @ _D50) / (_BRADFORD @ source)) @ _BRADFORD @ matrix
    )
    return adapted


def _from_xy(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(number: float) -> int:
    """A number of 16 bits before the point and 16 behind it."""
    return round(65536 * number)


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, values.tolist()))


def _whole(parts: dict[bytes, bytes]) -> bytes:
    """Header, table of tags, and tags (ICC.1, 7)."""
    table, body = struct.pack(">I", len(parts)), b""
    start = 128 + 4 + 12 * len(parts)
    for tag, content in parts.items():
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    return (header + _xyz(_D50)[8:]).ljust(128, b"\0") + table + body
