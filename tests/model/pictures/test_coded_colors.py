"""Colours by numbers (cICP of PNG, nclx of AVIF and HEIC) are those of a profile of the same space."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from model.errors import PictureFileError
from model.pictures.coded_colors import CodedColors, coded_profile
from model.pictures.decode import decode, from_pillow
from tests.model.pictures.profiles import profile
from tests.model.pictures.test_colors import COLORS, saved

PICTURE = Image.fromarray(COLORS)
SMOOTH = Image.fromarray(np.repeat(np.repeat(COLORS[::4, ::4], 16, 0), 16, 1))  # for codecs with loss
P3, BT2020 = (12, 13), (9, 14)
HDR = "the image is HDR"


def png(*numbers: int, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    """A PNG with the chunk cICP right behind its header."""
    data, content = saved(picture, **options), b"cICP" + bytes(numbers)
    chunk = struct.pack(">I", len(numbers)) + content + struct.pack(">I", zlib.crc32(content))
    return data[:33] + chunk + data[33:]


def pixels(data: bytes, remarks: list[str] | None = None) -> NDArray[np.int64]:
    return decode(data, max_pixels=1 << 15, remark=([] if remarks is None else remarks).append).astype(int)


def icc(numbers: tuple[int, int]) -> bytes:
    content = coded_profile(CodedColors(*numbers))
    assert content is not None
    return content


@pytest.mark.parametrize("numbers", [P3, BT2020, (11, 13), (9, 1), (12, 15), (1, 8), (5, 13), (22, 4)])
def test_a_png_by_numbers_is_that_by_a_profile(numbers: tuple[int, int]) -> None:
    remarks: list[str] = []
    by_numbers = pixels(png(*numbers, 0, 1), remarks)
    assert remarks == []
    assert np.abs(by_numbers - pixels(saved(PICTURE, icc_profile=icc(numbers)))).max() <= 1
    assert np.abs(by_numbers - COLORS).mean() > 1


def test_the_profiles_colors_are_those_of_the_formulas() -> None:
    """P3's and BT.2020's red, green and blue in sRGB's light, as published matrices have them."""
    expected = {
        12: [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]],
        9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    }
    # within sRGB, where nothing is cut off
    light = np.array([[0.3, 0.25, 0.2], [0.5, 0.5, 0.5], [0.1, 0.12, 0.15], [0.8, 0.7, 0.75]])
    for primaries, matrix in expected.items():
        coded = np.round(255 * (1.055 * light ** (1 / 2.4) - 0.055)).astype(np.uint8)
        linear = ((coded / 255 + 0.055) / 1.055) ** 2.4 @ np.array(matrix).T
        want = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
        got = pixels(png(primaries, 13, 0, 1, picture=Image.fromarray(coded[None])))
        assert np.abs(got[0] - want).max() <= 1, primaries


@pytest.mark.parametrize("numbers", [(5, 6), (6, 6), (7, 6), (9, 14), (12, 1)])
def test_video_stays_as_bright_as_screens_show_it(numbers: tuple[int, int]) -> None:
    """BT.601's, say, whose primaries are nearly sRGB's: grey stays what it is."""
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(3, 0).T[None])
    assert np.abs(pixels(png(*numbers, 0, 1, picture=grey)) - np.asarray(grey).astype(int)).max() <= 1


@pytest.mark.parametrize("numbers", [(1, 13), (1, 1), (1, 6), (2, 2), (2, 13), (12, 2), (0, 0), (99, 99)])
def test_what_is_srgb_or_unspecified_stays(numbers: tuple[int, int]) -> None:
    remarks: list[str] = []
    assert np.array_equal(pixels(png(*numbers, 0, 1), remarks), COLORS)
    assert remarks == []


def test_numbers_of_a_png_go_before_its_profile() -> None:
    adobe = profile("Adobe RGB")
    assert np.array_equal(pixels(png(*P3, 0, 1, icc_profile=adobe)), pixels(png(*P3, 0, 1)))
    # not where they say nothing, or what a profile says better
    by_profile = pixels(saved(PICTURE, icc_profile=adobe))
    for numbers in ((2, 2), (9, 16), (9, 18)):
        assert np.array_equal(pixels(png(*numbers, 0, 1, icc_profile=adobe)), by_profile)
    # numbers for other pixels than a PNG has, or too few of them
    for broken in ((12, 13, 6, 1), (12, 13), ()):
        assert np.array_equal(pixels(png(*broken)), COLORS)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_told(transfer: int, name: str) -> None:
    remarks: list[str] = []
    got = pixels(png(9, transfer, 0, 1), remarks)
    assert [remark.partition(",")[0] for remark in remarks] == [f"{HDR} ({name})"]
    assert np.abs(got - pixels(png(9, 13, 0, 1))).max() == 0


def test_a_narrow_range_is_made_full() -> None:
    narrow = Image.fromarray(np.round(16 + COLORS * (219 / 255)).astype(np.uint8))
    assert np.abs(pixels(png(1, 13, 0, 0, picture=narrow)) - COLORS).max() <= 1
    assert np.abs(pixels(png(*P3, 0, 0, picture=narrow)) - pixels(png(*P3, 0, 1))).mean() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_other_modes(mode: str) -> None:
    picture = PICTURE.convert(mode)
    got = pixels(png(*P3, 0, 1, picture=picture))
    if mode == "L":  # grey has no primaries
        assert np.array_equal(got, pixels(saved(picture)))
    else:
        same = picture.convert("RGB")
        assert np.abs(got - pixels(saved(same, icc_profile=icc(P3)))).max() <= 1


@pytest.mark.parametrize("numbers", [P3, BT2020, (9, 16)])
def test_avif_and_heic(numbers: tuple[int, int]) -> None:
    primaries, transfer = numbers
    heic = saved_heic(SMOOTH, color_primaries=primaries, transfer_characteristics=transfer)
    plain = saved_heic(SMOOTH)
    avif = saved(SMOOTH, "AVIF", quality=100, subsampling="4:4:4")
    colr = b"nclx" + struct.pack(">HH", 1, 13)
    assert avif.count(colr) == 1
    for tagged, untagged in (
        (heic, plain),
        (avif.replace(colr, b"nclx" + struct.pack(">HH", *numbers)), avif),
    ):
        remarks: list[str] = []
        got = pixels(tagged, remarks)
        read = Image.fromarray(pixels(untagged).astype(np.uint8))
        assert np.abs(got - pixels(png(*numbers, 0, 1, picture=read))).max() <= 1
        assert [remark.startswith(HDR) for remark in remarks] == [True] * (transfer == 16)
        assert np.abs(got - np.asarray(read)).mean() > 1


def test_a_profile_goes_before_the_numbers_of_a_heic() -> None:
    adobe = profile("Adobe RGB")
    read = Image.fromarray(pixels(saved(SMOOTH, "AVIF", quality=100, subsampling="4:4:4")).astype(np.uint8))
    tagged = saved(SMOOTH, "AVIF", quality=100, subsampling="4:4:4", icc_profile=adobe)
    tagged = tagged.replace(b"nclx" + struct.pack(">HH", 1, 13), b"nclx" + struct.pack(">HH", *P3))
    assert np.abs(pixels(tagged) - pixels(saved(read, icc_profile=adobe))).max() <= 1


def test_a_picture_that_pillow_has_opened() -> None:
    heic = saved_heic(SMOOTH, color_primaries=12, transfer_characteristics=13)
    with pillow_heif.HeifImageFile(io.BytesIO(heic)) as image:  # type: ignore[no-untyped-call]
        assert np.array_equal(from_pillow(image, max_pixels=1 << 20), pixels(heic))


def test_a_list_of_properties_that_is_cut_short() -> None:
    avif = saved(PICTURE, "AVIF", quality=100, subsampling="4:4:4")
    at = avif.index(b"ipma")
    for broken in (avif[: at + 8], avif[:at] + b"ipmx" + avif[at + 4 :]):
        with pytest.raises(PictureFileError):
            pixels(broken)


def saved_heic(image: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def test_our_profiles_are_read_by_lcms_with_their_names() -> None:
    read = ImageCms.ImageCmsProfile(io.BytesIO(icc(P3)))
    assert read.profile.xcolor_space == "RGB "
    red = read.profile.red_colorant
    assert red is not None
    assert red[0] == pytest.approx((0.5151, 0.2412, -0.0011), abs=2e-4)


def test_a_sequence_is_refused_with_what_is_supported() -> None:
    other = Image.fromarray(255 - COLORS)
    with pytest.raises(PictureFileError, match=r"is a sequence, .* still images .* GIF, WebP or PNG"):
        pixels(saved(PICTURE, "AVIF", save_all=True, append_images=[other]))
