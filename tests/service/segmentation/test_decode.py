"""Bytes to pictures: every mode and format, and nothing but our own errors for the rest."""

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.pictures.decode import settle_warnings
from service.errors import BadPictureError, ServiceError, TooManyPixelsError, UnsupportedMediaError
from service.segmentation.decode import decode
from tests.service.bad_pictures import announcing
from tests.service.fakes import encoded

MOST = 10_000
GREY = (np.arange(120, dtype=np.uint8) * 2).reshape(10, 12)
COLOR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@contextmanager
def as_in_service() -> Iterator[None]:
    """Warnings as the service sets them, not as pytest does."""
    with warnings.catch_warnings():
        settle_warnings()
        yield


def as_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, 2)


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    picture = decode(encoded(COLOR, form, **options), max_pixels=MOST)
    assert picture.shape == (10, 12, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.flags.writeable
    difference = np.abs(picture.astype(int) - COLOR).mean()
    assert difference <= {"JPEG": 40, "GIF": 40}.get(form, 0)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("L", "PNG"),
        ("L", "JPEG"),
        ("L", "TIFF"),
        ("L", "BMP"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "BMP"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "TIFF"),
        ("CMYK", "TIFF"),
        ("CMYK", "JPEG"),
        ("YCbCr", "TIFF"),
        ("YCbCr", "JPEG"),
        ("I", "TIFF"),
        ("F", "TIFF"),
        ("LAB", "TIFF"),
        ("PA", "TIFF"),
    ],
)
def test_modes_keep_a_grey_picture_grey(mode: str, form: str) -> None:
    data = saved(Image.fromarray(GREY).convert(mode), form, **({"quality": 100} if form == "JPEG" else {}))
    assert np.abs(decode(data, max_pixels=MOST).astype(int) - as_rgb(GREY)).max() <= 3


def test_one_bit() -> None:
    bits = GREY > 100
    assert (
        decode(saved(Image.fromarray(bits), "PNG"), max_pixels=MOST) == as_rgb(bits * np.uint8(255))
    ).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(form: str) -> None:
    deep = np.array([[0, 128, 257, 32768, 65406, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 128, 254, 255]], np.uint8)
    assert (decode(encoded(deep, form), max_pixels=MOST) == as_rgb(expected)).all()


def test_big_endian_16_bit_grey() -> None:
    deep = (GREY.astype(np.uint16) * 257).astype(">u2")
    image = Image.frombytes("I;16B", (12, 10), deep.tobytes())
    assert (decode(saved(image, "TIFF"), max_pixels=MOST) == as_rgb(GREY)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([5e5, 5e5, 5e5], [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
    ],
)
def test_floats_are_scaled_by_their_range(values: list[float], expected: list[int]) -> None:
    data = encoded(np.array([values], np.float32), "TIFF")
    assert decode(data, max_pixels=MOST)[0, :, 0].tolist() == expected


def test_alpha_is_laid_on_white() -> None:
    layer = np.zeros((1, 3, 4), np.uint8)
    layer[0, :, 3] = (0, 128, 255)
    assert decode(encoded(layer), max_pixels=MOST)[0].tolist() == [[255] * 3, [127] * 3, [0] * 3]


def test_transparent_palette_and_color_are_laid_on_white() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    for data in (
        saved(palette, "PNG", transparency=bytes([255, 0])),
        saved(palette, "GIF", transparency=1),
    ):
        assert decode(data, max_pixels=MOST)[0].tolist() == [[10, 20, 30], [255] * 3]
    data = saved(keyed, "PNG", transparency=(4, 5, 6))
    assert decode(data, max_pixels=MOST)[0].tolist() == [[1, 2, 3], [255] * 3]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(form: str, orientation: int) -> None:
    """Stored as the tag says, every picture comes out the same way up."""
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = 250
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a[::-1]),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](upright))
    picture = decode(encoded(stored, form, exif=exif), max_pixels=MOST)
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).mean() < 8


def test_broken_exif_does_not_matter() -> None:
    data = encoded(COLOR, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with as_in_service():
        assert decode(data, max_pixels=MOST).shape == (10, 12, 3)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG"])
def test_first_frame_counts(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (decode(data, max_pixels=MOST) == (255, 0, 0)).all()


def test_contents_tell_the_format_not_wishes() -> None:
    for data in (
        b"GIF 89a",
        b"RIFF....WAVE",
        b"\x89PNX",
        b"P6 1 1 255 abc",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"\0" * 99,
    ):
        with pytest.raises(UnsupportedMediaError, match="JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP and GIF"):
            decode(data, max_pixels=MOST)
    with pytest.raises(BadPictureError, match="empty"):
        decode(b"", max_pixels=MOST)


@pytest.mark.parametrize("form", FORMATS)
def test_cut_short(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    data = encoded(noise, form)
    for length in (4, 20, len(data) // 4, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises((BadPictureError, UnsupportedMediaError)):
            decode(data[:length], max_pixels=MOST)


def bomb(form: str) -> bytes:
    """A header that announces far more than there is."""
    if form == "PNG":
        return announcing(60_000, 60_000)
    if form == "BMP":
        return b"BM" + struct.pack(
            "<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0
        )
    if form == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0) + b",\0\0\0\0\x01\0\x01\0\0\x02\0;"
    if form == "GIF frame":  # the screen is small, but its frame is not
        return b"GIF89a\x01\0\x01\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 10_000, 10_000, 0) + b"\x02\0;"
    if form == "JPEG":
        size = struct.pack(">HBHHB", 11, 8, 60_000, 60_000, 1) + b"\x01\x11\0"
        return b"\xff\xd8\xff\xc0" + size + b"\xff\xda\0\x08\x01\x01\0\0?\0\xff\xd9"
    if form == "WEBP":
        canvas = (16_382).to_bytes(3, "little") * 2
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas
    tags = [
        (256, 60_000),
        (257, 60_000),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 60_000),
        (279, 9),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "GIF frame", "JPEG", "WEBP", "TIFF"])
def test_bombs_are_refused_by_their_header_without_a_warning(form: str) -> None:
    with as_in_service(), pytest.raises(TooManyPixelsError):
        decode(bomb(form), max_pixels=50_000_000)


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 50}, {"lossless": True, "exif": Image.Exif()}]
)
def test_webp_sizes_are_read_before_it_is_opened(options: dict[str, Any]) -> None:
    exif = options.get("exif")
    if exif is not None:
        exif[0x010E] = "a description, so that the file gets an extended header"
    data = encoded(np.zeros((50, 70, 3), np.uint8), "WEBP", **options)
    assert decode(data, max_pixels=3500).shape == (50, 70, 3)
    with pytest.raises(TooManyPixelsError, match="70 x 50 = 3500"):
        decode(data, max_pixels=3499)


def test_text_that_inflates_is_no_way_around_the_limits() -> None:
    bomb = zlib.compress(b"\0" * (100 << 20), 9)
    chunk = b"zTXta\0\0" + bomb
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = encoded(COLOR)
    tracemalloc.start()
    try:
        assert np.array_equal(decode(data[:33] + framed + data[33:], max_pixels=MOST), COLOR)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # bytes; the text has 100 MiB
    finally:
        tracemalloc.stop()


SEEDS = [
    *(encoded(COLOR, form) for form in FORMATS),
    encoded(GREY.astype(np.uint16) * 257),
    encoded(np.dstack([COLOR, GREY]), "WEBP"),
    saved(Image.fromarray(GREY).convert("F"), "TIFF", compression="tiff_lzw"),
    saved(Image.fromarray(COLOR), "TIFF", compression="jpeg"),
    saved(Image.fromarray(COLOR), "PNG", exif=Image.Exif(), transparency=(1, 2, 3)),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.none() | st.integers(0, 10_000),
)
def test_flipped_bytes_never_raise_anything_but_our_errors(
    seed: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        with as_in_service():
            picture = decode(bytes(data[:cut]), max_pixels=MOST)
    except ServiceError:
        return
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 1 <= picture.shape[0] * picture.shape[1] <= MOST
