"""Colour profiles: pixels are sRGB by each space's formulas, and what is broken is ignored with a remark."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from model.pictures.decode import decode
from tests.model.pictures.profiles import SPACES, encoded, grey_profile, in_srgb, profile

LEVELS = np.linspace(0, 255, 9).round().astype(np.uint8)
COLORS = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1).reshape(27, 27, 3)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", SPACES)
def test_colours_are_srgb(name: str, form: str) -> None:
    lossless: dict[str, Any] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = saved(Image.fromarray(COLORS), form, icc_profile=profile(name), **lossless.get(form, {}))
    remarks: list[str] = []
    got = decode(data, max_pixels=1000, remark=remarks.append)
    assert remarks == []
    # most colours of a wide space lie outside of sRGB, where each rounding counts on the way to the edge
    difference = np.abs(got - in_srgb(COLORS, name))
    assert difference.mean() <= (1.5 if form == "AVIF" else 0.6)
    assert difference.max() <= 6 or form == "AVIF"  # which has no exact way
    assert np.abs(COLORS - in_srgb(COLORS, name)).mean() > 3  # which is not what is stored


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_srgb_stays_as_it_is(mode: str) -> None:
    image = Image.fromarray(COLORS).convert(mode)
    tagged = grey_profile(2.2) if mode in ("L", "LA") else SRGB
    plain = decode(saved(image), max_pixels=1000)
    if mode in ("L", "LA"):  # grey of another gamma is not sRGB's grey
        expected = encoded(np.asarray(image.getchannel("L"))[..., None].repeat(3, 2) / 255.0)
        linear = encoded((np.asarray(image.getchannel("L"))[..., None].repeat(3, 2) / 255.0) ** (563 / 256))
        got = decode(saved(image, icc_profile=tagged), max_pixels=1000)
        assert np.abs(got - linear).max() <= 2
        assert np.abs(plain - expected).max() > 2
    else:
        assert np.array_equal(decode(saved(image, icc_profile=tagged), max_pixels=1000), plain)


def test_alpha_is_laid_on_white_after_the_colours() -> None:
    alpha = np.full((27, 27, 1), 128, np.uint8)
    image = Image.fromarray(np.concatenate([COLORS, alpha], 2))
    got = decode(saved(image, icc_profile=profile("Adobe RGB")), max_pixels=1000)
    expected = in_srgb(COLORS, "Adobe RGB") * 128 / 255 + 127
    assert np.abs(got - expected).max() <= 4


def test_a_palette_has_the_colours_of_its_profile() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 30, 40, 10, 220, 60])
    image.putpixel((1, 0), 1)
    got = decode(saved(image, icc_profile=profile("Display P3")), max_pixels=10)
    expected = in_srgb(np.array([[[200, 30, 40], [10, 220, 60]]], np.uint8), "Display P3")
    assert np.abs(got - expected).max() <= 2


@pytest.mark.parametrize(
    "broken",
    [SRGB[:100], b"\0" * 200, b"no profile", grey_profile(1.8), SRGB[:-400], profile("Adobe RGB")[:140]],
    ids=["cut short", "zeros", "text", "of grey", "its end missing", "its table missing"],
)
def test_a_broken_profile_is_ignored_with_a_remark(broken: bytes) -> None:
    remarks: list[str] = []
    data = saved(Image.fromarray(COLORS), icc_profile=broken)
    got = decode(data, max_pixels=1000, remark=remarks.append)
    assert np.array_equal(got, COLORS)
    assert [remark.partition(",")[0] for remark in remarks] == ["the image's colour profile is broken"]
