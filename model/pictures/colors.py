"""Colours to sRGB by the profile that a picture carries (ICC.1), or by its numbers for one."""

import functools
import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

from model.pictures.coded_colors import CodedColors, coded_profile

_KEPT = 16  # transforms; the pictures of one camera have one profile
_SAME = 1  # levels of 255 by which sRGB's own profiles differ from each other
_PROBED = 16  # colours looked at a channel
_BROKEN = "the image's colour profile is broken, or made for other pixels; its colours were taken as sRGB"
_IS_HDR = "the image is HDR ({}), and its brightness was read as an ordinary image's; send it as SDR"
_NARROW = [min(255, max(0, round((level - 16) * 255 / 219))) for level in range(256)]
Transform = ImageCms.ImageCmsTransform


def in_srgb(
    image: Image.Image, remark: Callable[[str], None], coded: CodedColors | None = None
) -> Image.Image:
    """The image in sRGB as L, LA, RGB or RGBA where it has a profile of something else; else as it is.

    Args:
        image: loaded, of any mode of 8 bits.
        remark: gets a sentence if the profile cannot be used, or if the image is HDR.
        coded: numbers that stand for a profile, known ones.
    """
    profile = image.info.get("icc_profile")
    if coded is not None and (coded.first or not profile):
        return _by_numbers(image, remark, coded)
    if not profile:
        return image
    plain, alpha = _split(image)
    if plain.mode not in ("L", "RGB", "CMYK"):
        return image
    try:
        transform = _transform(_Profile(bytes(profile)), plain.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        remark(_BROKEN)
        return image
    return image if transform is None else _with_alpha(transform.apply(plain), alpha)


def _by_numbers(image: Image.Image, remark: Callable[[str], None], coded: CodedColors) -> Image.Image:
    """The same by numbers; grey has no primaries, and stays."""
    if coded.hdr is not None:
        remark(_IS_HDR.format(coded.hdr))
    profile = coded_profile(coded)
    plain, alpha = _split(image)
    if plain.mode != "RGB" or (profile is None and coded.full):
        return image
    if not coded.full:
        plain = plain.point(_NARROW * 3)
    transform = None if profile is None else _transform(_Profile(profile), "RGB")
    return _with_alpha(plain if transform is None else transform.apply(plain), alpha)


def _with_alpha(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours alone, and alpha where there is some."""
    if image.mode in ("P", "PA", "YCbCr") or (image.mode == "RGB" and "transparency" in image.info):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "L" and "transparency" in image.info:
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    return image, None


class _Profile:
    """The bytes of a profile, as a key of few bytes."""

    def __init__(self, content: bytes):
        self.content = content
        self.digest = hashlib.sha256(content).digest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Profile) and self.digest == other.digest


@functools.lru_cache(maxsize=_KEPT)
def _transform(profile: _Profile, mode: str) -> Transform | None:
    """From a profile's colours to sRGB; None if they are sRGB."""
    srgb = ImageCms.createProfile("sRGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile.content))
    transform = ImageCms.buildTransform(
        source,
        srgb,
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, _PROBED).round().astype(np.uint8)
    if mode == "RGB":
        probe = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(_PROBED, -1, 3)
        wanted = probe
    else:
        probe = np.arange(256, dtype=np.uint8)[None]
        wanted = np.repeat(probe[..., None], 3, 2)
    got = np.asarray(transform.apply(Image.fromarray(probe)))
    return None if np.abs(got.astype(int) - wanted).max() <= _SAME else transform
