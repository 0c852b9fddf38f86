"""A picture being painted, back to front, with its label map."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.storybook import textures, things
from training.storybook.classes import STORYBOOK, Book

Mask = NDArray[np.uint8]
SHORT_SIDE = 192  # pixels of a picture at zoom 1


class Canvas:
    """Picture and labels of one size.

    Args:
        rng: decides everything.
        height, width: pixels.
        book: what there is to draw.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W], index into the book's classes.
    """

    def __init__(self, rng: Generator, height: int, width: int, book: Book = STORYBOOK):
        self.rng, self.book = rng, book
        self._numbers = {name: number for number, name in enumerate(book.classes)}
        self.height, self.width = height, width
        self.zoom = min(height, width) / SHORT_SIDE
        self.picture = np.zeros((height, width, 3), np.uint8)
        self.labels = np.zeros((height, width), np.uint8)

    def cover(self, name: str, mask: Mask) -> None:
        """Paints a texture where the mask is."""
        x, y, width, height = cv2.boundingRect(mask)
        if width and height:
            self._lay(
                name,
                textures.paint(name, self.rng, height, width, self.zoom),
                x,
                y,
                mask[y : y + height, x : x + width],
            )

    def cover_all(self, name: str) -> None:
        """Paints a texture everywhere."""
        self.cover(name, np.full((self.height, self.width), 255, np.uint8))

    def put(self, name: str, x: float, bottom: float, size: float, *, shadow: bool = True) -> None:
        """Puts a thing.

        Args:
            name: of the thing.
            x: of its middle, 0..1 of the width.
            bottom: where it stands, 0..1 of the height.
            size: its height, 0..1 of the picture's height.
            shadow: it casts one on what it stands on.
        """
        sprite = things.sprite(name, self.rng, max(8, round(size * self.height)))
        height, width = sprite.mask.shape
        left, top = round(x * self.width - width / 2), round(bottom * self.height - height)
        if shadow:
            self._shade(left + width / 2, top + height, 0.55 * width)
        first_x, first_y = max(0, -left), max(0, -top)
        last_x, last_y = min(width, self.width - left), min(height, self.height - top)
        if first_x < last_x and first_y < last_y:
            part = (slice(first_y, last_y), slice(first_x, last_x))
            self._lay(name, sprite.rgb[part], left + first_x, top + first_y, sprite.mask[part])

    def polygon(self, *points: tuple[float, float]) -> Mask:
        """The mask of a polygon of points (x, y) in 0..1."""
        mask = np.zeros((self.height, self.width), np.uint8)
        scaled = np.array(points) * [self.width, self.height] * 16
        cv2.fillPoly(mask, [np.rint(scaled).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        return mask

    def below(self, level: float, bump: float = 0.0, lean: float = 0.0) -> Mask:
        """Everything below a line: level, wavy or leaning, all in 0..1 of the height."""
        x = np.linspace(0, 1, 25)
        phase, waves = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.6, 1.6)
        y = level + bump * np.sin(2 * np.pi * waves * x + phase) + lean * (x - 0.5)
        return self.polygon(*zip(x.tolist(), y.tolist(), strict=True), (1, 1.1), (0, 1.1))

    def finish(self) -> None:
        """Light from one side, a little blur and grain."""
        turn = self.rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j].astype(np.float32)
        light = self.rng.uniform(0.88, 1.08) + self.rng.uniform(0, 0.14) * (
            np.cos(turn) * x + np.sin(turn) * y
        )
        lit = self.picture * light[:, :, None].astype(np.float32)
        blur = self.rng.uniform(0.0, 0.7) * self.zoom
        if blur > 0.25:
            lit = cv2.GaussianBlur(lit, (0, 0), blur)
        grain = self.rng.standard_normal((self.height, self.width, 1), dtype=np.float32)
        self.picture = np.clip(lit + self.rng.uniform(0, 5) * grain, 0, 255).astype(np.uint8)

    def shares(self) -> NDArray[np.float64]:
        """Share of the picture that each class covers, [classes]."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self._numbers))
        shares: NDArray[np.float64] = counts / self.labels.size
        return shares

    def _lay(self, name: str, rgb: NDArray[np.uint8], x: int, y: int, mask: Mask) -> None:
        height, width = mask.shape
        part = (slice(y, y + height), slice(x, x + width))
        under = self.picture[part]
        full = mask == 255
        under[full] = rgb[full]
        edge = (mask > 0) & ~full
        alpha = mask[edge][:, None].astype(np.float32) / 255
        under[edge] = (alpha * rgb[edge] + (1 - alpha) * under[edge]).astype(np.uint8)
        self.labels[part][mask >= 128] = self._numbers[name]

    def _shade(self, x: float, y: float, reach: float) -> None:
        mask = np.zeros((self.height, self.width), np.uint8)
        axes = (max(1, round(reach)), max(1, round(0.18 * reach)))
        cv2.ellipse(mask, (round(x), round(y)), axes, 0, 0, 360, 90, -1, cv2.LINE_AA)
        left, top, width, height = cv2.boundingRect(mask)
        part = (slice(top, top + height), slice(left, left + width))
        dark = 1 - mask[part][:, :, None].astype(np.float32) / 255
        self.picture[part] = (self.picture[part] * dark).astype(np.uint8)
