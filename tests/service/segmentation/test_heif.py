"""AVIF and HEIC: pixels, limits by what is within the file and not only by its header, and broken files."""

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.pictures.heif import HeifError, check_sizes, is_avif
from service.errors import BadPictureError, ServiceError, TooManyPixelsError, UnsupportedMediaError
from service.segmentation.decode import decode
from tests.model.pictures.jpeg_xl_files import FILES as JPEG_XL
from tests.service.fakes import post, problem, running

MOST = 100_000
FORMS = ("AVIF", "HEIC")
ROWS, COLUMNS = 72, 200


def scene(height: int = ROWS, width: int = COLUMNS) -> NDArray[np.uint8]:
    """Four flat quarters: red, green, blue, grey."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 200, 30)
    pixels[height // 2 :, : width // 2] = (30, 30, 200)
    pixels[height // 2 :, width // 2 :] = 120
    return pixels


def saved(form: str, image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    if form == "AVIF":
        image.save(stream, "AVIF", quality=90, subsampling="4:4:4", **options)
    else:
        encoder = pillow_heif.from_pillow(image)
        exif = options.get("exif")
        encoder.info["exif"] = exif
        encoder.save(stream, quality=90, chroma=444, **options)
    return stream.getvalue()


def sizes(data: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    check_sizes(data, found.append)
    return found


def boxed(data: bytes, size: tuple[int, int], other: tuple[int, int]) -> bytes:
    """With another size in all boxes that tell it; the compressed data stays."""
    old, new = (b"ispe" + bytes(4) + struct.pack(">II", *one) for one in (size, other))
    assert data.count(old)
    return data.replace(old, new)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(ROWS, COLUMNS), (1, 1), (33, 7), (301, 203)])
def test_pixels(form: str, size: tuple[int, int]) -> None:
    pixels = scene(*size)
    data = saved(form, Image.fromarray(pixels))
    assert is_avif(data) == (form == "AVIF")
    picture = decode(data, max_pixels=MOST)
    assert picture.shape == pixels.shape
    assert picture.flags.writeable
    assert np.abs(picture.astype(int) - pixels).mean() < 12


@pytest.mark.parametrize("form", FORMS)
def test_alpha_is_laid_on_white_and_grey_stays_grey(form: str) -> None:
    layer = np.concatenate([scene(), np.zeros((ROWS, COLUMNS, 1), np.uint8)], 2)
    layer[:, : COLUMNS // 4, 3] = 255
    picture = decode(saved(form, Image.fromarray(layer)), max_pixels=MOST)
    assert (picture[:, COLUMNS // 2 :] > 240).all()
    assert np.abs(picture[:, : COLUMNS // 5].astype(int) - scene()[:, : COLUMNS // 5]).mean() < 12
    grey = decode(saved(form, Image.fromarray(scene()[:, :, 0])), max_pixels=MOST)
    assert np.ptp(grey.astype(int), axis=2).max() <= 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(form: str, orientation: int) -> None:
    """As the same pixels with the same EXIF data do in a PNG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(scene())
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    expected = decode(stream.getvalue(), max_pixels=MOST)
    data = saved(form, image, exif=exif.tobytes())
    assert orientation == 1 or b"irot" in data or b"imir" in data
    picture = decode(data, max_pixels=MOST)
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).mean() < 12


@pytest.mark.parametrize("form", FORMS)
def test_too_many_pixels_are_refused_by_the_header(form: str) -> None:
    data = saved(form, Image.fromarray(scene()))
    with pytest.raises(TooManyPixelsError):
        decode(data, max_pixels=ROWS * COLUMNS - 1)
    assert decode(data, max_pixels=ROWS * COLUMNS).shape == (ROWS, COLUMNS, 3)


@pytest.mark.parametrize("form", FORMS)
def test_a_bomb_within_a_small_header_is_refused_before_it_goes_off(form: str) -> None:
    bomb = saved(form, Image.new("RGB", (4000, 3000)))
    assert len(bomb) < 200_000
    small = boxed(bomb, (4000, 3000), (64, 48))
    within = {size for size in sizes(small) if size != (64, 48)}
    assert within == {(4000, 3000)}, "what the codec says itself"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyPixelsError, match="4000 x 3000"):
            decode(small, max_pixels=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_every_size_within_is_seen(form: str) -> None:
    """Of the picture, its alpha, and, for a picture of tiles, of all of these."""
    layer = np.concatenate([scene(), scene()[:, :, :1]], 2)
    found = sizes(saved(form, Image.fromarray(layer)))
    assert len(found) >= 3
    assert all(abs(width - COLUMNS) <= 8 and abs(height - ROWS) <= 8 for width, height in found)


def test_grids_and_their_own_sizes() -> None:
    data = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic") + box(
        b"meta",
        bytes(4)
        + box(b"iinf", bytes(4) + struct.pack(">H", 1) + infe(1, b"grid"))
        + box(b"iloc", iloc(1, 0, 8, method=1))
        + box(b"idat", struct.pack(">BBBBHH", 0, 0, 0, 0, 4000, 3000)),
    )
    assert sizes(data) == [(4000, 3000)]
    wide = data.replace(
        struct.pack(">BBBBHH", 0, 0, 0, 0, 4000, 3000), struct.pack(">BBBBHH", 0, 1, 0, 0, 4000, 3000)
    )
    with pytest.raises(HeifError):
        sizes(wide)  # its sizes would take eight bytes


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def infe(item: int, kind: bytes) -> bytes:
    return box(b"infe", b"\x02\0\0\0" + struct.pack(">HH", item, 0) + kind + b"\0")


def iloc(item: int, offset: int, length: int, *, method: int = 0, extents: int = 1) -> bytes:
    places = struct.pack(">II", offset, length) * extents
    return (
        b"\x01\0\0\0\x44\x00" + struct.pack(">HHHH", 1, item, method, 0) + struct.pack(">H", extents) + places
    )


def file_of(items: bytes, places: bytes, *more: bytes) -> bytes:
    return (
        box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
        + box(b"meta", bytes(4) + box(b"iinf", items) + box(b"iloc", places))
        + b"".join(more)
    )


ONE = bytes(4) + struct.pack(">H", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (box(b"ftyp", b"heic" + bytes(4)), "no box of items"),
        (box(b"ftyp", b"heic" + bytes(4)) + box(b"meta", bytes(4)), "no items"),
        (file_of(ONE + infe(1, b"hvc1"), iloc(1, 0, 8), box(b"moov", b"")), "sequence"),
        (file_of(ONE + infe(1, b"jpeg"), iloc(1, 0, 8)), "type 'jpeg'"),
        (file_of(ONE + infe(1, b"hvc1"), iloc(2, 0, 8)), "type ''"),
        (file_of(ONE + infe(1, b"hvc1") + infe(1, b"mime"), iloc(1, 0, 8)), "two types"),
        (file_of(ONE + box(b"infe", bytes(12)), iloc(1, 0, 8)), "list of items"),
        (file_of(ONE + infe(1, b"mime"), iloc(1, 0, 0, extents=60_000)), "overlap"),
        (file_of(ONE + infe(1, b"mime"), iloc(1, 0, 8, method=2)), "cannot be found"),
        (file_of(ONE + infe(1, b"hvc1"), iloc(1, 150, 0), bytes(100_000)), "too many parts"),
        (file_of(ONE + infe(1, b"mime"), iloc(1, 0, 8)) + b"\0\0\0\x04free", "do not fit"),
        (file_of(ONE + infe(1, b"mime"), iloc(1, 0, 8)) + b"\x7f\0\0\0free", "do not fit"),
    ],
)
def test_files_that_are_not_taken(data: bytes, message: str) -> None:
    with pytest.raises(HeifError, match=message):
        sizes(data)
    with pytest.raises(BadPictureError, match=message):
        decode(data, max_pixels=MOST)


@pytest.mark.parametrize("form", FORMS)
def test_cut_or_changed_anywhere_only_our_errors_come(form: str) -> None:
    whole = saved(form, Image.fromarray(scene()))
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        if random.random() < 0.3:
            del data[int(random.integers(12, len(data))) :]
        for _ in range(int(random.integers(1, 5))):
            data[int(random.integers(12, len(data)))] = int(random.integers(256))
        try:
            assert decode(bytes(data), max_pixels=MOST).size <= 3 * MOST
        except ServiceError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"8BPS\0\1", "a Photoshop image"),
        (b"P6\n72 48\n255\n", "a PNM image"),
        (b"qoif\0\0\0\1", "a QOI image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript document"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
        (b"\xef\xbb\xbf<!DOCTYPE html><p>", "an HTML page"),
        (b"https://pictures.example/a.png", "a URL"),
        (b"data:image/png;base64,AAAA", "an image in base64"),
        ("just some text, ümlauts too".encode(), "text"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "an MP4 or QuickTime video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a raw image of a camera"),
        (b"RIFF\0\0\0\0AVI ", "a RIFF file"),
        (128 * b"\0" + b"DICM", "a DICOM file"),
        (
            b"\0\1\2\3\4\5\6\7\x08",
            "begins with the bytes 00 01 02 03 04 05 06 07$|bytes 00 01 02 03 04 05 06 07;",
        ),
    ],
)
def test_other_files_are_told_by_what_they_are(data: bytes, seen: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=seen) as reported:
        decode(data, max_pixels=MOST)
    assert "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP and GIF" in str(reported.value)


@pytest.mark.anyio
async def test_the_service_takes_them() -> None:
    async with running(max_pixels=ROWS * COLUMNS) as (client, _):
        for form in FORMS:
            answer = await post(client, image=saved(form, Image.fromarray(scene())))
            assert answer.status_code == 200, answer.text
            assert answer.json()["size"] == {"width": COLUMNS, "height": ROWS}
            large = await post(client, image=saved(form, Image.fromarray(scene(ROWS + 1))))
            assert problem(large, 413)["type"] == "urn:ebseg:problem:too-many-pixels"
        answer = await post(client, image=JPEG_XL["orientation 6"])
        assert answer.json()["size"] == {"width": 18, "height": 20}
        problem(await post(client, image=JPEG_XL["a hidden frame"]), 400)
        reported = problem(await post(client, image=b"%PDF-1.7"), 415)
    assert reported["detail"].startswith("this is a PDF document; images are taken as JPEG")
