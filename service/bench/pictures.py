"""What the load sends and gets: pictures, class names, and a label map. Without torch, so quick to import."""

import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.vocabulary.classes import Vocabulary
from service.bench.connection import STAMP

PICTURES = 4  # different ones, sent in turn
QUALITY = 90  # of the JPEGs
GRAIN = (
    6.0  # standard deviation of the noise, of 255; 640 x 480 pixels make some 90 kB, as those of a photo do
)
REGIONS = 60  # of the label map; its PNG has the size of a street scene's
WAVE = (7.0, 23.0)  # amplitude and wavelength of the regions' borders, pixels
_COMMENT = b"\xff\xfe" + (2 + len(STAMP)).to_bytes(2, "big") + STAMP  # a JPEG comment


def pictures(width: int, height: int, count: int = PICTURES) -> list[NDArray[np.uint8]]:
    """Waves with the grain of a photo; RGB, uint8 [H, W, 3] each."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    chance = np.random.default_rng(0)
    made = []
    for index in range(count):
        waves = [60 * (np.sin(y * 0.02 + index) + np.cos(x * 0.03 + channel)) for channel in range(3)]
        grain = chance.normal(0, GRAIN, (height, width, 1))
        made.append(np.clip(np.stack(waves, -1) + 120 + grain, 0, 255).astype(np.uint8))
    return made


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """A JPEG whose comment is `STAMP`: with a number in its place no two requests have the same bytes.

    A service that knows pictures again must run its model on each of them.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
    data = buffer.getvalue()
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    return data[:after_jfif] + _COMMENT + data[after_jfif:]


def class_names(count: int) -> list[str]:
    """So many class names."""
    names = Vocabulary.builtin("ade20k-847").names
    return (names + [f"thing number {index}" for index in range(count - len(names))])[:count]


@functools.lru_cache(maxsize=4)
def label_map(size: tuple[int, int], classes: int) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Regions with wavy borders, and a confidence of one everywhere; both [H, W], nobody writes to them.

    Args:
        size: rows and columns.
        classes: so many labels, from 1.
    """
    amplitude, wavelength = WAVE
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wavy_y = y + amplitude * np.sin(x / wavelength * 2 * np.pi)
    wavy_x = x + amplitude * np.cos(y / wavelength * 2 * np.pi)
    chance = np.random.default_rng(0)
    nearest = np.full(size, np.inf, np.float32)
    labels = np.ones(size, np.uint16)
    for region in range(REGIONS):
        centre_y, centre_x = chance.uniform(0, 1, 2) * size
        distance = (wavy_y - centre_y) ** 2 + (wavy_x - centre_x) ** 2
        labels[distance < nearest] = 1 + region % classes
        np.minimum(nearest, distance, out=nearest)
    return labels, np.ones(size, np.float32)
