"""Augmentation of a training picture: resize, crop, SSD's colour jitter, flip, pad (Mask2Former's recipe).

Everything is drawn from one numpy generator, so that equal generators give equal bits. Pictures are RGB,
uint8 [H, W, 3]; label maps [H, W] of signed integers, as narrow as they come, -1 where nothing is known.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.transforms import network_size, resized
from training.config import TrainConfig
from training.data.layout import IGNORED
from training.losses.matcher import Target

Picture = NDArray[np.uint8]
Labels = NDArray[np.signedinteger[Any]]

# Ranges of the jitter, as SSD has them; each of the four is applied to every second picture.
BRIGHTNESS = 32.0  # added, up or down
CONTRAST = SATURATION = (0.5, 1.5)  # factors
HUE = 18  # of 180 steps around the circle, up or down
HUES = 180


def augment(
    picture: Picture, labels: Labels, config: TrainConfig, rng: np.random.Generator
) -> tuple[Picture, Labels]:
    """A picture and its labels as one step sees them, `crop` pixels square.

    Pictures that are smaller than the crop are padded at the bottom and right, their labels ignored there.
    """
    size = network_size(labels.shape, int(rng.choice(config.short_sides)), config.long_side)
    picture, labels = resize(picture, labels, size)
    picture, labels = random_crop(picture, labels, config.crop, rng)
    if config.color_jitter:
        picture = jitter_colors(picture, rng)
    if config.flip and rng.random() < 0.5:
        picture, labels = picture[:, ::-1], labels[:, ::-1]
    return pad(picture, labels, config.crop, config.pad_value)


def resize(picture: Picture, labels: Labels, size: tuple[int, int]) -> tuple[Picture, Labels]:
    """The picture as evaluation does it; the nearest label."""
    if size == labels.shape:
        return picture, labels
    rows, columns = (nearest(m, n) for m, n in zip(labels.shape, size, strict=True))
    taken: Labels = labels.take(rows, 0).take(columns, 1)
    return resized(picture, size), taken


@lru_cache(256)
def nearest(cells: int, out: int) -> NDArray[np.intp]:
    """Which of an axis's cells each of `out` takes, as Pillow chooses them; it resizes an axis of numbers."""
    axis = Image.fromarray(np.arange(cells, dtype=np.int32)[None])
    chosen: NDArray[np.intp] = np.array(axis.resize((out, 1), Image.Resampling.NEAREST), dtype=np.intp)[0]
    return chosen


def random_crop(
    picture: Picture, labels: Labels, side: int, rng: np.random.Generator
) -> tuple[Picture, Labels]:
    """A square of this side at any place; a picture's whole extent where it is smaller."""
    top = int(rng.integers(max(0, labels.shape[0] - side) + 1))
    left = int(rng.integers(max(0, labels.shape[1] - side) + 1))
    rows, columns = slice(top, top + side), slice(left, left + side)
    return picture[rows, columns], labels[rows, columns]


def pad(picture: Picture, labels: Labels, side: int, value: int) -> tuple[Picture, Labels]:
    """Fills a picture up to a square of this side, at the bottom and right."""
    if labels.shape == (side, side):
        return picture, labels
    bottom, right = side - labels.shape[0], side - labels.shape[1]
    filled = np.pad(picture, ((0, bottom), (0, right), (0, 0)), constant_values=value)
    return filled, np.pad(labels, ((0, bottom), (0, right)), constant_values=IGNORED)


def jitter_colors(picture: Picture, rng: np.random.Generator) -> Picture:
    """SSD's photometric distortion: brightness, then contrast before or after saturation and hue."""
    if rng.random() < 0.5:
        picture = scaled(picture, 1.0, rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_first = rng.random() < 0.5
    if contrast_first:
        picture = _contrast(picture, rng)
    if rng.random() < 0.5:
        picture = saturated(picture, rng.uniform(*SATURATION))
    if rng.random() < 0.5:
        picture = turned(picture, int(rng.integers(-HUE, HUE + 1)))
    if not contrast_first:
        picture = _contrast(picture, rng)
    return picture


def scaled(picture: Picture, factor: float, shift: float) -> Picture:
    """Every value times `factor` plus `shift`, cut off at 0 and 255."""
    table = np.clip(np.arange(256, dtype=np.float64) * factor + shift, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(picture, table), dtype=np.uint8)


def saturated(picture: Picture, factor: float) -> Picture:
    """Every pixel's saturation times `factor`."""
    hsv = _to_hsv(picture)
    hsv[..., 1] = scaled(np.ascontiguousarray(hsv[..., 1]), factor, 0.0)
    return _to_rgb(hsv)


def turned(picture: Picture, steps: int) -> Picture:
    """Every pixel's hue turned by this many of 180 steps around the circle."""
    hsv = _to_hsv(picture)
    table = ((np.arange(256) + steps) % HUES).astype(np.uint8)
    hsv[..., 0] = cv2.LUT(np.ascontiguousarray(hsv[..., 0]), table)
    return _to_rgb(hsv)


def _contrast(picture: Picture, rng: np.random.Generator) -> Picture:
    return scaled(picture, rng.uniform(*CONTRAST), 0.0) if rng.random() < 0.5 else picture


def _to_hsv(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV), dtype=np.uint8)


def _to_rgb(hsv: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def trained_indices(trained: Sequence[bool]) -> NDArray[np.int64]:
    """Index among the trained classes of each class of a data set, `IGNORED` for a new one; [K]."""
    flags = np.asarray(trained, dtype=bool)
    return np.where(flags, flags.cumsum() - 1, IGNORED)


def to_target(labels: Labels, indices: NDArray[np.int64]) -> Target:
    """One mask for each trained class that is there.

    Args:
        labels: [H, W], classes of the data set.
        indices: of `trained_indices`.

    Returns:
        labels in the order of the trained classes, masks bool [k, H, W].
    """
    labels = np.ascontiguousarray(labels)  # of a mirrored picture they run backwards
    # counted, since sorting takes as long as all the rest of a picture; the class k stands at k + 1
    counts = np.bincount((labels - labels.dtype.type(IGNORED)).ravel(), minlength=len(indices) + 1)
    here = np.flatnonzero((counts[1:] > 0) & (indices >= 0))
    masks = np.empty((len(here), *labels.shape), dtype=bool)
    for mask, label in zip(masks, here, strict=True):
        np.equal(labels, label.astype(labels.dtype), out=mask)
    return Target(labels=torch.from_numpy(indices[here]), masks=torch.from_numpy(masks))
