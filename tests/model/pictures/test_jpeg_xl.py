"""JPEG XL: files of the real encoder, limits by what is within the file, and broken ones."""

import io
import itertools
import struct
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.errors import PictureFileError, PictureFormatError, PictureFrameError, PictureSizeError
from model.pictures.decode import decode
from model.pictures.jpeg_xl import BASE_BYTES, PIXEL_BYTES, bytes_apart, read_header
from model.pictures.suffixes import TAKEN
from tests.model.pictures.jpeg_xl_files import ALPHA, FILES, PICTURE
from tests.model.pictures.profiles import profile

MOST = 10_000
HIDDEN = """
import resource
from model.errors import PictureFileError
from model.pictures.decode import decode
from tests.model.pictures.jpeg_xl_files import FILES
try:
    decode(FILES["a hidden frame"], max_pixels=10_000)
except PictureFileError:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
"""


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def boxed(*boxes: bytes) -> bytes:
    return b"\0\0\0\x0cJXL \r\n\x87\n" + box(b"ftyp", b"jxl \0\0\0\0jxl ") + b"".join(boxes)


def on_white(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    share = ALPHA[..., None] / 255
    return picture * share + 255 * (1 - share)


GREY = np.repeat(PICTURE[..., :1], 3, 2)
EXACT = {
    "bare codestream": PICTURE,
    "orientation 1": PICTURE,
    "16 bits": PICTURE,
    "floats": PICTURE,
    "depth and spot colour": PICTURE,
    "layers": PICTURE,
    "grey": GREY,
}
NEAR: dict[str, NDArray[np.float64]] = {
    "lossy": PICTURE.astype(np.float64),
    "alpha": on_white(PICTURE),
    "premultiplied alpha": on_white(PICTURE),
    "grey with alpha": on_white(GREY),
}


def test_their_ending_is_known() -> None:
    assert ".jxl" in TAKEN


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_that_were_encoded(name: str) -> None:
    assert np.array_equal(decode(FILES[name], max_pixels=MOST), EXACT[name])


@pytest.mark.parametrize("name", NEAR)
def test_pixels_are_nearly_those_that_were_encoded(name: str) -> None:
    difference = np.abs(decode(FILES[name], max_pixels=MOST) - NEAR[name])
    assert difference.mean() < 0.8
    assert difference.max() <= (8 if name == "lossy" else 2)


@pytest.mark.parametrize("by", range(2, 9))
def test_the_header_turns_the_picture(by: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = by
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG", exif=exif)
    with Image.open(buffer) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    asked: list[tuple[int, int]] = []
    found = decode(FILES[f"orientation {by}"], max_pixels=MOST, accept=asked.append)
    assert np.array_equal(found, expected)
    assert asked == [(18, 20)]  # as it is stored


def test_a_colour_space_by_its_name_counts_as_its_profile_does() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG", icc_profile=profile("Display P3"))
    expected = decode(buffer.getvalue(), max_pixels=MOST).astype(int)
    found = decode(FILES["display p3"], max_pixels=MOST)
    assert np.abs(found - expected).max() <= 12  # that profile has one gamma, and sRGB's curve is none
    assert np.abs(found - expected).mean() < 0.3 * np.abs(PICTURE - expected).mean()


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_codestream_in_parts(parts: int) -> None:
    stream = FILES["bare codestream"]
    cuts = [*range(0, 3 * parts, 3), len(stream)]  # the header lies in several
    pieces = [stream[first:last] for first, last in itertools.pairwise(cuts)]
    numbers = [at | (at + 1 == parts) << 31 for at in range(parts)]
    boxes = [box(b"jxlp", struct.pack(">I", at) + piece) for at, piece in zip(numbers, pieces, strict=True)]
    assert np.array_equal(decode(boxed(*boxes), max_pixels=MOST), PICTURE)


@pytest.mark.parametrize("size", [(20, 18), (4096, 300), (1, 1 << 30), (262_145, 65)])
def test_size_and_limit_are_those_of_the_header(size: tuple[int, int]) -> None:
    def side(number: int) -> str:
        at, bits, more = next(
            (at, bits, more)
            for at, (bits, more) in enumerate(((9, 1), (13, 1), (18, 1), (30, 1)))
            if number - more < 1 << bits
        )
        return f"{at:02b}"[::-1] + f"{number - more:0{bits}b}"[::-1]

    text = "0" + side(size[1]) + "000" + side(size[0]) + "1"
    data = b"\xff\x0a" + int(text[::-1], 2).to_bytes(len(text) // 8 + 1, "little")
    assert read_header(data).size == size
    with pytest.raises(PictureSizeError, match=f"{size[0]} x {size[1]}"):
        decode(data, max_pixels=359)
    with pytest.raises(PictureSizeError):
        decode(FILES["bare codestream"], max_pixels=359)


def test_a_hidden_frame_takes_no_more_than_the_picture_may() -> None:
    with pytest.raises(PictureFileError, match="asks for more than 96 MiB or 10 s"):
        decode(FILES["a hidden frame"], max_pixels=MOST)
    done = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 110 << 20  # the pixels of that frame alone are 192 MB
    assert bytes_apart(FILES["a hidden frame"], 360) == BASE_BYTES + 360 * PIXEL_BYTES
    assert bytes_apart(b"\xff\xd8\xff", 360) == 0


def test_animations_and_further_frames_are_refused() -> None:
    with pytest.raises(
        PictureFileError, match=r"animation in JPEG XL, of which still images .* GIF, WebP or PNG"
    ):
        decode(FILES["animation"], max_pixels=MOST)
    assert np.array_equal(decode(FILES["bare codestream"], max_pixels=MOST, frame=0), PICTURE)
    with pytest.raises(PictureFrameError, match="no frame 1"):
        decode(FILES["bare codestream"], max_pixels=MOST, frame=1)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\x0a",
        FILES["bare codestream"][:6],
        FILES["bare codestream"][:-1],
        FILES["floats"][:600],
        boxed(),
        boxed(box(b"jxlc", b"")),
        boxed(box(b"jxlp", b"\0\0\0\0")),
        boxed(struct.pack(">I4s", 4, b"jxlc")),
        boxed(box(b"free", b"") * 100_000),
        boxed(struct.pack(">I4sQ", 1, b"jxlc", 1 << 63)),
    ],
)
def test_broken_files_are_told(data: bytes) -> None:
    with pytest.raises(PictureFileError, match="broken or cut short"):
        decode(data, max_pixels=MOST)


def test_changed_anywhere_only_our_errors_come() -> None:
    random = np.random.default_rng(1)
    for name in ("orientation 6", "alpha", "lossy", "grey"):
        data = bytearray(FILES[name])
        for _ in range(3):
            data[int(random.integers(2, len(data)))] = int(random.integers(256))
        try:
            assert decode(bytes(data), max_pixels=MOST).size <= 3 * MOST
        except PictureFileError:
            continue


def test_without_its_package_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyjpegxl", None)
    with pytest.raises(PictureFormatError, match=r"JPEG XL image, .*pip install ebseg\[jxl\]"):
        decode(FILES["bare codestream"], max_pixels=MOST)
