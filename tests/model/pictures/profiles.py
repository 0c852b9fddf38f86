"""Colour profiles for tests (ICC.1:2010, 7 to 10), and what their colours are in sRGB by the formulas."""

import struct

import numpy as np
from numpy.typing import NDArray

WHITES = {"D65": (0.3127, 0.3290), "D50": (0.3457, 0.3585)}
D50 = np.array([0.9642, 1.0, 0.8249])  # of the profile connection space
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
# primaries as x, y of red, green and blue; white; gamma
SPACES = {
    "Display P3": (((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), "D65", 2.2),
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), "D65", 2.2),
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), "D50", 1.8),
    "Rec. 2020": (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), "D65", 2.4),
    "swapped primaries": (((0.15, 0.06), (0.30, 0.60), (0.64, 0.33)), "D65", 2.2),
    "Apple RGB": (((0.625, 0.340), (0.280, 0.595), (0.155, 0.070)), "D65", 1.8),
}


def to_d50(primaries: tuple[tuple[float, float], ...], white: str) -> NDArray[np.float64]:
    """Linear RGB to XYZ under D50, columns for red, green and blue."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = WHITES[white]
    source = np.array([x / y, 1, (1 - x - y) / y])
    matrix = xyz * np.linalg.solve(xyz, source)
    scale = np.diag((BRADFORD @ D50) / (BRADFORD @ source))
    adapted: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix
    return adapted


def profile(name: str) -> bytes:
    """A display profile of three primaries and one gamma."""
    primaries, white, gamma = SPACES[name]
    columns = to_d50(primaries, white)
    parts = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 79}
    parts[b"cprt"] = b"text\0\0\0\0none\0"
    parts[b"wtpt"] = _xyz(D50)
    for at, color in enumerate((b"r", b"g", b"b")):
        parts[color + b"XYZ"] = _xyz(columns[:, at])
        parts[color + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    return _whole(b"RGB ", parts)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    parts = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 79}
    return _whole(b"GRAY", parts | {b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(D50), b"kTRC": curve})


def in_srgb(colors: NDArray[np.uint8], name: str) -> NDArray[np.float64]:
    """Colours [..., 3] of a space in sRGB, 0..255."""
    primaries, white, gamma = SPACES[name]
    linear = (colors / 255) ** gamma
    converted = linear @ to_d50(primaries, white).T @ np.linalg.inv(to_d50(SRGB, "D65")).T
    return encoded(converted)


def encoded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light to sRGB's numbers, 0..255 (IEC 61966-2-1)."""
    clipped = np.clip(linear, 0, 1)
    low = 12.92 * clipped
    values: NDArray[np.float64] = 255 * np.where(
        clipped <= 0.0031308, low, 1.055 * clipped ** (1 / 2.4) - 0.055
    )
    return values


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def _whole(space: bytes, parts: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(parts)), b""
    start = 128 + 4 + 12 * len(parts)
    for tag, content in parts.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += struct.pack(">3i", *(round(65536 * value) for value in D50)) + b"\0" * 48
    whole = bytearray(header[:128].ljust(128, b"\0") + table + body)
    struct.pack_into(">I", whole, 0, len(whole))
    return bytes(whole)
