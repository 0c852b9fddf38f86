"""Colours to sRGB by the profile that a picture carries (ICC.1)."""

import functools
import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

_KEPT = 16  # transforms; the pictures of one camera have one profile
_SAME = 1  # levels of 255 by which sRGB's own profiles differ from each other
_PROBED = 16  # colours looked at a channel
_BROKEN = "the image's colour profile is broken, or made for other pixels; its colours were taken as sRGB"
Transform = ImageCms.ImageCmsTransform


def in_srgb(image: Image.Image, remark: Callable[[str], None]) -> Image.Image:
    """The image in sRGB as L, LA, RGB or RGBA where it has a profile of something else; else as it is.

    Args:
        image: loaded, of any mode of 8 bits.
        remark: gets a sentence if the profile cannot be used.
    """
    profile = image.info.get("icc_profile")
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
    if transform is None:
        return image
    converted = transform.apply(plain)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


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
