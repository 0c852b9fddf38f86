"""What people draw on pictures, and the label map that comes of it.

Coordinates are pixels of the picture, x to the right and y down, from the upper left corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from training.data.layout import IGNORED
from training.data.prepare import rle
from training.errors import DatasetError

LEAST_CORNERS = 3
ELLIPSE_STEP = 3  # degrees between the corners of the polygon that stands for an ellipse


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnRegion:
    """One region of one class: polygons, or a mask.

    Attributes:
        label: the class's name.
        rings: polygons [n, 2], all filled.
        mask: of the whole picture in place of polygons, as `packed` makes it.
    """

    label: str
    rings: tuple[NDArray[np.float64], ...] = ()
    mask: dict[str, Any] | None = None

    def filled(self, height: int, width: int) -> NDArray[np.bool_]:
        """Its mask in a picture of this size; polygons are filled as COCO's own code does."""
        runs = self._runs(height, width)
        return rle.decode(runs["counts"].decode(), *runs["size"])

    def area(self, height: int, width: int) -> int:
        """Pixels of it in a picture of this size."""
        return int(coco_mask.area(self._runs(height, width)))

    def _runs(self, height: int, width: int) -> dict[str, Any]:
        if self.mask is not None:
            return self.mask
        flat = [corners.ravel().tolist() for corners in self.rings]
        runs: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
        return runs


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedPicture:
    """A picture of an export, and what was drawn on it.

    Attributes:
        name: unique in the export; becomes the files' stem.
        picture: the file, or its bytes where the export carries them.
        size: height and width of the raster that was drawn on; None if the export does not say.
        split: where the export tells of one.
        regions: later ones lie over earlier ones.
        label_map: image file of the whole truth, in place of regions.
        values: label of each value of that file: an index or a colour (red, green, blue).
    """

    name: str
    picture: Path | bytes
    size: tuple[int, int] | None = None
    split: str | None = None
    regions: tuple[DrawnRegion, ...] = ()
    label_map: Path | None = None
    values: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """What a tool wrote.

    Attributes:
        pictures: in the order of their names.
        classes: in their order, where the export has one; else empty.
        left_out: how often something without an area was passed over, by its kind.
    """

    pictures: list[AnnotatedPicture]
    classes: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def ring(points: Sequence[Sequence[float]], where: str) -> NDArray[np.float64]:
    """A polygon of corners (x, y).

    Raises:
        DatasetError: there are fewer than three, or one is no pair of finite numbers.
    """
    try:
        corners = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        raise DatasetError(f"{where}: the corners of a polygon are not pairs of numbers") from None
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise DatasetError(f"{where}: the corners of a polygon are not pairs of finite numbers")
    if len(corners) < LEAST_CORNERS:
        raise DatasetError(f"{where}: a polygon has {len(corners)} corners; remove it, or draw it again")
    return corners


def box(
    left: float,
    top: float,
    right: float,
    bottom: float,
    turned: float = 0.0,
    around: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """A rectangle as a polygon, turned clockwise by degrees around a point, or its upper left corner."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    return _turned(corners, np.array(around or (left, top)), turned)


def ellipse(x: float, y: float, across: float, down: float, turned: float = 0.0) -> NDArray[np.float64]:
    """An ellipse around (x, y) with these radii as a polygon, turned clockwise by degrees."""
    angles = np.deg2rad(np.arange(0, 360, ELLIPSE_STEP))
    corners = np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], -1)
    return _turned(corners, np.array([x, y]), turned)


def _turned(corners: NDArray[np.float64], center: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((corners - center) @ matrix + center)


def packed(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask [H, W] as COCO's run lengths, which take a thousandth of its room."""
    found: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return found


def painted(
    regions: Sequence[DrawnRegion], places: dict[str, int], height: int, width: int
) -> NDArray[np.int64]:
    """A label map [height, width], -1 where nothing was drawn.

    Args:
        regions: later ones over earlier ones.
        places: label of each class's name; -1 for those that are no class.
        height, width: of the picture.

    Raises:
        DatasetError: a mask has another size.
    """
    labels = np.full((height, width), IGNORED, dtype=np.int64)
    for region in regions:
        mask = region.filled(height, width)
        if mask.shape != labels.shape:
            raise DatasetError(
                f"a mask of {region.label} is {mask.shape[1]} x {mask.shape[0]} pixels, the image is "
                f"{width} x {height}"
            )
        labels[mask] = places[region.label]
    return labels


def within(part: NDArray[np.bool_], left: int, top: int, size: tuple[int, int], where: str) -> dict[str, Any]:
    """A mask of the whole picture from one of a part of it.

    Raises:
        DatasetError: the part reaches beyond the picture.
    """
    mask = np.zeros(size, dtype=bool)
    if min(left, top) < 0 or left + part.shape[1] > size[1] or top + part.shape[0] > size[0]:
        raise DatasetError(f"{where}: a mask reaches beyond the image of {size[1]} x {size[0]} pixels")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return packed(mask)


def grey_or_alpha(content: bytes, where: str) -> NDArray[np.bool_]:
    """A mask stored as a picture: what is not black, or where there is an alpha channel not transparent."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DatasetError(f"{where}: a mask is no image that can be read")
    channels = np.asarray(image)
    if channels.ndim == 2:
        return np.asarray(channels > 0)
    transparent = channels.shape[2] in (2, 4)
    return np.asarray(channels[..., -1] > 0 if transparent else channels.max(-1) > 0)
