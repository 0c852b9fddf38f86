"""Training, the service and `ebseg.load` read each odd file alike, and harmless oddities are no errors."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from model.errors import PictureFileError
from model.pictures import decode as pictures
from model.vocabulary.classes import ClassName
from service.segmentation.decode import decode
from tests.model.pictures.jpeg_xl_files import FILES as JPEG_XL
from tests.model.pictures.profiles import profile
from training.data.layout import SegmentationFolder
from training.data.pictures import read_picture
from training.data.writing import write_classes, write_labels

RNG = np.random.default_rng(0)
PICTURE = np.kron(RNG.integers(0, 256, (6, 9, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
ALPHA = np.dstack([PICTURE, np.tile(np.arange(72, dtype=np.uint8) * 3, (48, 1))])
MOST = 10_000


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(by: int, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = by
    return saved(Image.fromarray(PICTURE), form, exif=exif, quality=95)


def heic() -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(PICTURE)).save(buffer, quality=90)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes) -> bytes:
    """Behind the header."""
    data = saved(Image.fromarray(PICTURE), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


LARGE = bytes(RNG.integers(32, 127, 3 << 20, np.uint8))  # of text, that hardly gets smaller
P3 = profile("Display P3")
LARGE_P3 = P3 + bytes(3 << 20)  # with an unused end
JPEG = saved(Image.fromarray(PICTURE), "JPEG", quality=90)
FILES: dict[str, bytes] = {
    "png with alpha": saved(Image.fromarray(ALPHA), "PNG"),
    "webp with alpha": saved(Image.fromarray(ALPHA), "WEBP", lossless=True),
    "grey with alpha": saved(Image.fromarray(ALPHA).convert("LA"), "PNG"),
    "palette with a clear colour": saved(Image.fromarray(PICTURE).convert("P"), "PNG", transparency=3),
    "png of one bit": saved(Image.fromarray(PICTURE).convert("1"), "PNG"),
    "16-bit grey": saved(Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257), "PNG"),
    "32-bit grey": saved(Image.fromarray(PICTURE[..., 0].astype(np.int32) * 1000), "TIFF"),
    "float grey": saved(Image.fromarray(PICTURE[..., 0].astype(np.float32) / 255), "TIFF"),
    "cmyk": saved(Image.fromarray(PICTURE).convert("CMYK"), "JPEG"),
    "heic": heic(),
    "avif": saved(Image.fromarray(PICTURE), "AVIF", quality=80),
    "jpeg xl": JPEG_XL["display p3"],
    "gif": saved(Image.fromarray(PICTURE).convert("P"), "GIF"),
    "bmp": saved(Image.fromarray(PICTURE), "BMP"),
    "lzw tiff": saved(Image.fromarray(PICTURE), "TIFF", compression="tiff_lzw"),
    "display p3": saved(Image.fromarray(PICTURE), "PNG", icc_profile=P3),
    "progressive": saved(Image.fromarray(PICTURE), "JPEG", progressive=True),
    **{f"exif {by}": turned(by) for by in range(1, 9)},
    "exif 6 in png": turned(6, "PNG"),
    "exif 3 in webp": turned(3, "WEBP"),
    "jpeg without its end mark": JPEG[:-2],
    "png with a large text": png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE))),
}


@pytest.mark.parametrize("name", FILES)
def test_all_read_alike(tmp_path: Path, name: str) -> None:
    data = FILES[name]
    served = decode(data, max_pixels=MOST)
    file = tmp_path / "images" / "val" / "a.jpg"  # by a name that says nothing
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    assert np.array_equal(read_picture(file), served)
    assert np.array_equal(read_picture(data, "a"), served)
    write_labels(tmp_path, "val", "a", np.zeros(served.shape[:2], np.int64), ignore=255)
    write_classes(tmp_path, [ClassName(name="sky")], [True], 255, "")
    assert np.array_equal(SegmentationFolder(tmp_path, "val")[0].picture, served)
    if name not in ("jpeg without its end mark", "png with a large text", "heic", "jpeg xl"):
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(pictures.from_pillow(image, max_pixels=MOST), served)


@pytest.mark.parametrize(
    ("by", "turn"), [(2, Image.Transpose.FLIP_LEFT_RIGHT), (3, Image.Transpose.ROTATE_180)]
)
def test_half_turns_reach_training(by: int, turn: Image.Transpose) -> None:
    stored = Image.fromarray(decode(turned(1), max_pixels=MOST))
    assert np.array_equal(read_picture(turned(by), "a"), np.asarray(stored.transpose(turn)))


@pytest.mark.parametrize("cut", [1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
def test_a_jpeg_may_lack_its_end_mark(options: dict[str, Any], cut: int) -> None:
    data = saved(Image.fromarray(PICTURE), "JPEG", **options)
    assert np.array_equal(decode(data[:-cut], max_pixels=MOST), decode(data, max_pixels=MOST))


def test_a_jpeg_may_lack_nothing_else() -> None:
    whole = decode(JPEG, max_pixels=MOST)
    accepted = 0
    for cut in range(3, 400):
        try:
            got = pictures.decode(JPEG[:-cut], max_pixels=MOST)
        except PictureFileError:
            continue
        accepted += 1
        assert np.array_equal(got, whole)
    assert accepted < 5  # by the bits that fill the last byte


@pytest.mark.parametrize("cut", [1, 2, 4, 8, 12])
def test_a_png_may_lack_its_end(cut: int) -> None:
    assert np.array_equal(decode(png_with()[:-cut], max_pixels=MOST), PICTURE)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"tEXt", b"a\0" + LARGE)],
        [chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE))],
        [chunk(b"iTXt", b"a\0\x01\0\0\0" + zlib.compress(LARGE))],
        [chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE)), chunk(b"tEXt", b"b\0short")],
    ],
    ids=["plain", "packed", "international", "two"],
)
def test_texts_of_any_length(chunks: list[bytes]) -> None:
    assert np.array_equal(decode(png_with(*chunks), max_pixels=MOST), PICTURE)


def test_a_large_profile_counts() -> None:
    large = png_with(chunk(b"iCCP", b"p3\0\0" + zlib.compress(LARGE_P3)))
    small: NDArray[np.uint8] = decode(FILES["display p3"], max_pixels=MOST)
    assert np.array_equal(decode(large, max_pixels=MOST), small)
    assert not np.array_equal(small, PICTURE)


def test_a_profile_that_inflates_without_end_is_left_out() -> None:
    endless = png_with(chunk(b"iCCP", b"p3\0\0" + zlib.compress(bytes(100 << 20), 9)))
    assert np.array_equal(decode(endless, max_pixels=MOST), PICTURE)


def test_damaged_pixels_stay_an_error() -> None:
    damaged = bytearray(png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE))))
    damaged[-60] ^= 0xFF
    with pytest.raises(PictureFileError):
        pictures.decode(bytes(damaged), max_pixels=MOST)
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20  # Pillow's own limit stays
