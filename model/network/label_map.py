"""Masks and class probabilities to label maps with confidences, at any size.

A label map never holds scores of all classes and pixels. On a CPU it is made in tiles that fit into its
cache, of the classes alone that can win there; elsewhere in bands of rows, large enough for a GPU to be busy,
in chunks of classes with a running maximum, and for many pictures at once: the host waits once for all.
Shape suffixes: Q queries, K classes, H and W rows and columns of the output, T pixels of a tile or band, y
and x rows and columns of the mask logits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import PictureError
from model.network.copies import copies_of, download
from model.network.kernels import (
    BAND_PIXELS,
    CLASSES_AT_ONCE,
    LABEL_MAPS,
    TILE,
    best_class,
    contenders,
)
from model.network.layers import resize
from model.network.predictions import MaskPredictions

OTHER = 0  # the label of a pixel that no class wins with enough confidence
CELL = 4  # pixels of the padded picture along a side of a mask's cell


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """Which class each pixel belongs to.

    Attributes:
        labels: uint16 [H, W]; 0 is "other", the others are `Vocabulary.labels`: k is class k - 1 if none is
            ignored.
        confidence: float32 [H, W] in 0..1, of the winning class, before the threshold.
    """

    labels: NDArray[np.uint16]
    confidence: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifiedMasks:
    """What a label map is made of, of one picture.

    Attributes:
        logits: of the masks, [Q, y, x].
        image_size: rows and columns of the picture before padding, pixels.
        probabilities: of each class for each query, [Q, K].
        labels: of each class, 1..65535.
        least: confidence of each class below which a pixel becomes "other", 0..1.
        output_size: rows and columns of the label map, pixels.

    Raises:
        PictureError: an output without pixels.
    """

    logits: Tensor
    image_size: tuple[int, int]
    probabilities: Tensor
    labels: Sequence[int]
    least: Sequence[float]
    output_size: tuple[int, int]

    def __post_init__(self) -> None:
        check_output_size(self.output_size)


def label_maps(pictures: Sequence[ClassifiedMasks]) -> list[LabelMap]:
    """The winning class of every pixel, and its confidence; see `Segmenter.label_map`."""
    if not pictures:
        return []
    if LABEL_MAPS.on(pictures[0].logits.device) == "tiles":
        return [_in_tiles(picture) for picture in pictures]
    return _in_bands(pictures)


def scored_parts(own: MaskPredictions, output_size: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Mask probabilities at output size, part by part: rows, columns, [Q, T]; of one picture."""
    logits = own.mask_logits[0]
    if LABEL_MAPS.on(logits.device) == "tiles":
        yield from _tiles(logits, own.image_size, output_size)
    else:
        for rows, masks_QT in _bands(logits, own.image_size, output_size):
            yield rows, slice(0, output_size[1]), masks_QT


def check_output_size(size: tuple[int, int]) -> None:
    """Raises PictureError if there is no pixel in it."""
    if min(size) < 1:
        raise PictureError(f"an output needs at least one pixel a side, got {size[0]} x {size[1]}")


# --- tiles


def _in_tiles(picture: ClassifiedMasks) -> LabelMap:
    probabilities = picture.probabilities
    labels = np.empty(picture.output_size, np.uint16)
    confidence = np.empty(picture.output_size, np.float32)
    all_classes = probabilities.sum(1, keepdim=True)
    values, least = torch.tensor(picture.labels), torch.tensor(picture.least)
    for rows, columns, masks_QT in _tiles(picture.logits, picture.image_size, picture.output_size):
        candidates = contenders(masks_QT, probabilities)
        best, winner = best_class(masks_QT.T @ probabilities[:, candidates])
        certain = best / (masks_QT.T @ all_classes)[:, 0].clamp(min=1)
        wins = candidates[winner]
        label = torch.where(certain >= least[wins], values[wins], OTHER)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        labels[rows, columns] = label.view(shape).to(torch.int32).numpy()
        confidence[rows, columns] = certain.view(shape).numpy()
    return LabelMap(labels=labels, confidence=confidence)


def _tiles(
    logits_Qyx: Tensor, image_size: tuple[int, int], output_size: tuple[int, int]
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Mask probabilities tile by tile: rows, columns, [Q, T].

    The masks are resized to the padded picture, cropped to the picture and resized to the output. Both
    resizes act on rows and columns apart, so each axis is one small matrix.
    """
    by_row = _resizing_matrix(logits_Qyx.shape[1], image_size[0], output_size[0], logits_Qyx)
    by_column = _resizing_matrix(logits_Qyx.shape[2], image_size[1], output_size[1], logits_Qyx)
    height, width = output_size
    strips = [_strip(by_row, top, min(top + TILE[0], height)) for top in range(0, height, TILE[0])]
    for left in range(0, width, TILE[1]):
        columns = slice(left, min(left + TILE[1], width))
        wide_QyW = logits_Qyx @ by_column[columns].T
        for rows, band, weights in strips:
            tile = weights @ wide_QyW[:, band]
            yield rows, columns, tile.flatten(1).sigmoid_()


def _strip(by_row: Tensor, top: int, bottom: int) -> tuple[slice, slice, Tensor]:
    """Rows of the output, the rows of the logits that they are made of, and their weights."""
    weights = by_row[top:bottom]
    used = weights.any(0).nonzero()[:, 0]
    band = slice(int(used[0]), int(used[-1]) + 1)
    return slice(top, bottom), band, weights[:, band]


# --- bands


def _in_bands(pictures: Sequence[ClassifiedMasks]) -> list[LabelMap]:
    tables: list[Tensor] = []
    for picture in pictures:
        # int16 holds 65535 as -1, and the host reads it as uint16 again
        tables.append(torch.tensor(picture.labels, dtype=torch.int32).to(_label_type(picture)))
        tables.append(torch.tensor(picture.least, dtype=torch.float32))
    tables = copies_of(pictures[0].logits.device).upload(tables)
    found: list[Tensor] = []
    for number, picture in enumerate(pictures):
        found += _band_by_band(picture, *tables[2 * number : 2 * number + 2])
    arrived = download(found)
    return [
        LabelMap(
            labels=labels.numpy()
            .view(np.uint8 if labels.dtype == torch.uint8 else np.uint16)
            .astype(np.uint16),
            confidence=confidence.numpy(),
        )
        for labels, confidence in zip(arrived[::2], arrived[1::2], strict=True)
    ]


def _label_type(picture: ClassifiedMasks) -> torch.dtype:
    return torch.uint8 if max(picture.labels) < 256 else torch.int16


def _band_by_band(picture: ClassifiedMasks, values: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and float32 confidences of one picture, [H, W] each, on its device."""
    probabilities = picture.probabilities
    all_classes = probabilities.sum(1, keepdim=True)
    labels = values.new_empty(picture.output_size)
    confidence = torch.empty(picture.output_size, dtype=torch.float32, device=values.device)
    for rows, masks_QT in _bands(picture.logits, picture.image_size, picture.output_size):
        best, winner = _winners(masks_QT, probabilities)
        certain = best / (masks_QT.T @ all_classes)[:, 0].clamp(min=1)
        label = torch.where(certain >= least[winner], values[winner], OTHER)
        labels[rows] = label.view(-1, picture.output_size[1])
        confidence[rows] = certain.view(-1, picture.output_size[1])
    return labels, confidence


def _winners(masks_QT: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's largest score and its class, the first of equals, [T] each."""
    best: Tensor | None = None
    winner: Tensor | None = None
    chunk = CLASSES_AT_ONCE.on(masks_QT.device)
    for first, part in zip(
        range(0, probabilities.shape[1], chunk), probabilities.split(chunk, 1), strict=True
    ):
        score, place = (masks_QT.T @ part).max(1)
        if best is None or winner is None:
            best, winner = score, place
        else:
            winner = torch.where(score > best, place + first, winner)
            best = best.maximum(score)
    assert best is not None
    assert winner is not None
    return best, winner


def _bands(
    logits_Qyx: Tensor, image_size: tuple[int, int], output_size: tuple[int, int]
) -> Iterator[tuple[slice, Tensor]]:
    """Mask probabilities in bands of whole rows: rows, [Q, T]; the same as `_tiles` gives."""
    cells = (logits_Qyx.shape[1], logits_Qyx.shape[2])
    height, width = output_size
    by_row = _resizing_matrix(cells[0], image_size[0], height, logits_Qyx)
    by_column = _resizing_matrix(cells[1], image_size[1], width, logits_Qyx)
    wide_QyW = logits_Qyx @ by_column.T
    at_once = max(1, BAND_PIXELS.on(logits_Qyx.device) // width)
    for top in range(0, height, at_once):
        rows = slice(top, min(top + at_once, height))
        used = _cells_of(rows, cells[0], image_size[0], height)
        band = by_row[rows, used] @ wide_QyW[:, used]
        yield rows, band.flatten(1).sigmoid_()


def _cells_of(rows: slice, cells: int, cropped: int, out: int) -> slice:
    """The mask's rows that some rows of the output are read from; one more at each end does no harm."""

    def place(position: float, scale: float) -> float:
        return (position + 0.5) * scale - 0.5

    first, last = (place(row, cropped / out) for row in (rows.start, rows.stop - 1))
    low = int(place(max(0, int(first) - 1), 1 / CELL)) - 1
    high = int(place(int(last) + 2, 1 / CELL)) + 2
    return slice(max(0, low), min(cells, high + 1))


def _resizing_matrix(cells: int, cropped: int, out: int, like: Tensor) -> Tensor:
    """One axis of: resize from stride 4 to the padded picture, crop, resize to the output; [out, cells].

    It is what bilinear resizing makes of the identity matrix, so it has the very same coefficients.
    """
    identity = torch.eye(cells, dtype=like.dtype, device=like.device)[None, None]
    padded = resize(identity, (CELL * cells, cells))[:, :, :cropped]
    return resize(padded, (out, cells))[0, 0]
