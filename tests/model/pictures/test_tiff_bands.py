"""TIFFs of many bands and of floats: their first bands are the picture, and a remark says so."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

from model.errors import PictureFileError, PictureFormatError, PictureFrameError, PictureSizeError
from model.pictures.decode import decode
from model.pictures.tiff_bands import BandsRemark

RNG = np.random.default_rng(2)
HEIGHT, WIDTH = 70, 90
TILES = {"tiled": True, "blockxsize": 32, "blockysize": 48}


def written(folder: Path, samples: NDArray[Any], **options: Any) -> bytes:
    """A TIFF of samples [bands, H, W]."""
    path = folder / "a.tif"
    size: dict[str, Any] = {"count": len(samples), "height": samples.shape[1], "width": samples.shape[2]}
    size["transform"] = Affine(0.5, 0, 7, 0, -0.5, 9)
    with rasterio.open(path, "w", driver="GTiff", dtype=samples.dtype, **size, **options) as file:
        file.write(samples)
    return path.read_bytes()


def samples_of(kind: str, bands: int) -> NDArray[Any]:
    if np.dtype(kind).kind == "f":
        return RNG.random((bands, HEIGHT, WIDTH)).astype(kind)
    info = np.iinfo(kind)
    return RNG.integers(info.min, info.max, (bands, HEIGHT, WIDTH), kind, endpoint=True)


def wanted(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """By the rule of 16-bit grey, or by the range."""
    taken = (samples[:3] if len(samples) >= 3 else samples[:1].repeat(3, 0)).astype(np.float32)
    if samples.dtype == np.uint16:
        taken = taken * np.float32(255 / 65535)
    elif samples.dtype.kind == "f":
        taken = taken * np.float32(255)
    else:
        low, high = float(taken.min()), float(taken.max())
        taken = ((taken / 2 - low / 2) / (high / 2 - low / 2) * 255).astype(np.float32)
    return np.round(taken).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("kind", "bands", "options"),
    [
        ("uint16", 5, {}),
        ("uint16", 5, {"compress": "lzw", "predictor": 2, "interleave": "pixel"}),
        ("uint16", 5, {"compress": "deflate", "interleave": "band"}),
        ("uint16", 5, {"compress": "deflate", "predictor": 2, **TILES}),
        ("uint16", 5, {**TILES, "interleave": "band"}),
        ("uint16", 5, {"bigtiff": "yes", "compress": "packbits"}),
        ("uint16", 5, {"endianness": "big", "compress": "deflate", "predictor": 2}),
        ("float32", 3, {"photometric": "rgb"}),
        ("float32", 3, {"compress": "deflate", "predictor": 3, "interleave": "pixel"}),
        ("float32", 3, {"compress": "lzw", "predictor": 3, **TILES}),
        ("float32", 3, {"compress": "deflate", "predictor": 3, "endianness": "big"}),
        ("float64", 4, {}),
        ("int16", 3, {"compress": "zstd"}),
        ("uint32", 3, {"bigtiff": "yes"}),
        ("float64", 1, {}),
        ("uint16", 2, {"photometric": "minisblack", "alpha": "no"}),
    ],
    ids=str,
)  # fmt: skip
def test_first_bands_are_the_picture(kind: str, bands: int, options: dict[str, Any], tmp_path: Path) -> None:
    samples = samples_of(kind, bands)
    data = written(tmp_path, samples, **options)
    remarks: list[str] = []
    pixels = decode(data, max_pixels=HEIGHT * WIDTH * 4, remark=remarks.append)
    assert np.abs(pixels.astype(int) - wanted(samples)).max() <= (1 if kind == "uint32" else 0)
    (remark,) = remarks
    assert isinstance(remark, BandsRemark)
    assert f"a TIFF of {bands} bands of {8 * samples.dtype.itemsize}-bit" in remark


def test_sizes_and_frames_are_looked_at_first(tmp_path: Path) -> None:
    data = written(tmp_path, samples_of("uint16", 5))
    asked: list[tuple[int, int]] = []
    decode(data, max_pixels=10**5, accept=asked.append)
    assert asked == [(HEIGHT, WIDTH)]
    with pytest.raises(PictureSizeError, match=r"90 x 70 = 6300 pixels, at most 6000"):
        decode(data, max_pixels=6000)
    with pytest.raises(PictureFrameError, match="no frame 3"):
        decode(data, max_pixels=10**5, frame=3)
    many = written(tmp_path, samples_of("uint16", 30), interleave="pixel")
    with pytest.raises(PictureFormatError, match=r"a TIFF of 30 bands of 16 bits.*more bytes than are taken"):
        decode(many, max_pixels=6300)


@pytest.mark.parametrize(
    ("kind", "bands", "options", "message"),
    [
        ("complex64", 3, {}, "a TIFF of 3 bands of 64 bits, of several kinds"),
        ("uint16", 5, {"photometric": "cmyk"}, "as CMYK"),
    ],
)
def test_others_are_named(
    kind: str, bands: int, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    samples = np.zeros((bands, HEIGHT, WIDTH), kind)
    with pytest.raises(PictureFileError, match=message):
        decode(written(tmp_path, samples, **options), max_pixels=10**5)


def test_broken_directories_are_errors(tmp_path: Path) -> None:
    for options in ({}, {"compress": "deflate", **TILES}):
        data = written(tmp_path, samples_of("uint16", 5), **options)
        for _ in range(300):
            broken = bytearray(data)
            (start,) = struct.unpack_from("<I", data, 4)
            for at in RNG.integers(0, 250, 4):
                broken[(start + at) % len(data)] = RNG.integers(256)
            cut = bytes(broken[: RNG.integers(20, len(data))]) if RNG.random() < 0.3 else bytes(broken)
            try:
                pixels = decode(cut, max_pixels=20_000)
            except PictureFileError:
                continue
            assert pixels.shape[0] * pixels.shape[1] <= 20_000


def test_a_raw_pictures_preview_is_no_picture(tmp_path: Path) -> None:
    preview = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    preview.save(tmp_path / "a.dng", "TIFF", tiffinfo={254: 1, 330: 8})
    with pytest.raises(PictureFormatError, match="a raw image of a camera"):
        decode((tmp_path / "a.dng").read_bytes(), max_pixels=10**5)
