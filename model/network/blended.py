"""Predictions of tiles to the label map of one picture, without seams.

Where tiles overlap, a class's score is the mean of its scores in each of them, weighted by how far the pixel
lies from the tile's edge; the label map is made of these scores. It is made in bands, see `model.tiling`.
Shape suffixes: Q queries, K classes, y and x rows and columns of the mask logits, T pixels of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.network.copies import download
from model.network.kernels import BLENDED_BLOCK, best_class
from model.network.label_map import CELL, OTHER, LabelMap
from model.network.layers import resize
from model.tiling import TiledAxis, TileLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifiedTile:
    """What a tile is made of.

    Attributes:
        row, column: which tile of the layout it is.
        logits: of the masks, [Q, y, x].
        image_size: rows and columns at network resolution before padding, pixels.
        probabilities: of each class for each query, [Q, K].
    """

    row: int
    column: int
    logits: Tensor
    image_size: tuple[int, int]
    probabilities: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TiledBand:
    """A band of the output.

    Attributes:
        layout: of the picture's tiles.
        rows: of the output.
        tiles: all that cover some of the band.
    """

    layout: TileLayout
    rows: slice
    tiles: Sequence[ClassifiedTile]


def blended_labels(band: TiledBand, labels: Sequence[int], least: Sequence[float]) -> LabelMap:
    """The winning class of every pixel of a band, and its confidence.

    Args:
        band: of K classes.
        labels: of each class, 1..65535.
        least: confidence of each class below which a pixel becomes "other", 0..1.
    """
    device = band.tiles[0].logits.device
    values, bounds = torch.tensor(labels, device=device), torch.tensor(least, device=device)
    size = (band.rows.stop - band.rows.start, band.layout.output[1])
    found = torch.empty(size, dtype=torch.int32, device=device)
    confidence = torch.empty(size, dtype=torch.float32, device=device)
    for rows, columns, scores_TK in blended_scores(band):
        best, winner = best_class(scores_TK) if device.type == "cpu" else scores_TK.max(1)
        certain = best / scores_TK.sum(1).clamp(min=1)
        label = torch.where(certain >= bounds[winner], values[winner], OTHER)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        found[rows, columns] = label.view(shape).to(torch.int32)
        confidence[rows, columns] = certain.view(shape)
    on_host = download([found, confidence])
    return LabelMap(labels=on_host[0].numpy().astype(np.uint16), confidence=on_host[1].numpy())


def blended_scores(band: TiledBand) -> Iterator[tuple[slice, slice, Tensor]]:
    """Class scores block by block: rows from the band's first on, columns, [T, K]."""
    layout, like = band.layout, band.tiles[0].logits
    down, across = BLENDED_BLOCK.on(like.device)
    by_row, by_column = _Resizing(layout.rows, 0), _Resizing(layout.columns, 1)
    for left in range(0, layout.output[1], across):
        columns = slice(left, min(left + across, layout.output[1]))
        beside = set(layout.columns.covering(columns))
        tiles = [
            (tile, tile.logits @ by_column.matrix(tile, columns).T, by_column.weights(tile, columns))
            for tile in band.tiles
            if tile.column in beside
        ]
        for top in range(band.rows.start, band.rows.stop, down):
            rows = slice(top, min(top + down, band.rows.stop))
            above = set(layout.rows.covering(rows))
            scores: Tensor | None = None
            for tile, wide_QyW, weights_W in tiles:
                if tile.row in above:
                    masks_QT = (by_row.matrix(tile, rows) @ wide_QyW).flatten(1).sigmoid_()
                    weights_T = (by_row.weights(tile, rows)[:, None] * weights_W).flatten()
                    own = (masks_QT.T @ tile.probabilities).mul_(weights_T[:, None])
                    scores = own if scores is None else scores.add_(own)
            assert scores is not None  # tiles cover all of a picture
            yield slice(top - band.rows.start, rows.stop - band.rows.start), columns, scores


class _Resizing:
    """One axis of: resize a tile's logits to its padded input, crop, resize to output pixels.

    The last is linear between the two input pixels beside an output pixel, as bilinear resizing is.

    Args:
        axis: of the tiles.
        dim: 0 for rows, 1 for columns.
    """

    def __init__(self, axis: TiledAxis, dim: int):
        self._axis = axis
        self._dim = dim
        self._matrices: dict[tuple[int, int, int], Tensor] = {}
        self._weights: dict[tuple[int, int], Tensor] = {}
        self._padded: dict[tuple[int, int], Tensor] = {}

    def matrix(self, tile: ClassifiedTile, pixels: slice) -> Tensor:
        """Of output pixels, [T, cells]."""
        at, seen = self._at(tile), tile.image_size[self._dim]
        key = (at, pixels.start, seen)
        if key not in self._matrices:
            padded = self._input(tile, seen)
            places = (self._axis.centres(pixels) - self._axis.starts[at]) * (seen / self._axis.size) - 0.5
            places = places.clip(0, seen - 1)
            low = np.minimum(places.astype(np.int64), max(0, seen - 2))
            share = _like((places - low)[:, None], padded)
            lower, upper = (
                padded[torch.from_numpy(rows).to(padded.device)]
                for rows in (low, np.minimum(low + 1, seen - 1))
            )
            self._matrices[key] = lower * (1 - share) + upper * share
        return self._matrices[key]

    def weights(self, tile: ClassifiedTile, pixels: slice) -> Tensor:
        """How much the tile counts at output pixels, [T]."""
        key = (self._at(tile), pixels.start)
        if key not in self._weights:
            self._weights[key] = _like(self._axis.weights(self._at(tile), pixels), tile.logits)
        return self._weights[key]

    def _at(self, tile: ClassifiedTile) -> int:
        return (tile.row, tile.column)[self._dim]

    def _input(self, tile: ClassifiedTile, seen: int) -> Tensor:
        """The tile's input pixels, of its cells, [seen, cells]."""
        cells = tile.logits.shape[1 + self._dim]
        if (cells, seen) not in self._padded:
            identity = torch.eye(cells, dtype=tile.logits.dtype, device=tile.logits.device)[None, None]
            self._padded[cells, seen] = resize(identity, (CELL * cells, cells))[0, 0, :seen]
        return self._padded[cells, seen]


def _like(array: NDArray[np.float64], tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.device, tensor.dtype)
