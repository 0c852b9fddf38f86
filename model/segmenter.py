"""Picture and vocabulary to a label map with confidences, at any size.

A label map never holds scores of all classes and pixels: it goes tile by tile and keeps the winner.
Shape suffixes: Q queries, K classes, H and W rows and columns of the output, T pixels of a tile,
y and x rows and columns of the mask logits.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ModelError, PictureError
from model.network.balance import Balance
from model.network.ebseg import EBSeg
from model.network.kernels import TILE, best_class, contenders
from model.network.layers import resize
from model.network.predictions import MaskPredictions
from model.transforms import to_network
from model.vocabulary.classes import Vocabulary

OTHER = 0  # the label of a pixel that no class wins with enough confidence
TEXTS_KEPT = 16  # vocabularies whose embeddings are kept


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


class Segmenter:
    """Everything around the model that turns one picture into one label map.

    Args:
        ebseg: the model.
        short_side: pictures are resized to this short side, pixels; None takes them as they are.
        long_side: largest long side, pixels.
    """

    def __init__(
        self,
        ebseg: EBSeg,
        *,
        short_side: int | Literal["configured"] | None = "configured",
        long_side: int | Literal["configured"] = "configured",
    ):
        self.ebseg = ebseg
        self.short_side = ebseg.config.short_side if short_side == "configured" else short_side
        self.long_side = ebseg.config.long_side if long_side == "configured" else long_side
        for name, side in (("short_side", self.short_side), ("long_side", self.long_side)):
            if side is not None and side < 1:
                raise ModelError(f"{name} must be at least one pixel, got {side}")
        self._texts: LRUCache[str, Tensor] = LRUCache(TEXTS_KEPT)
        self._lock = threading.Lock()

    def prepare(self, picture: NDArray[np.uint8] | Tensor) -> Tensor:
        """Resizes a picture to network resolution, uint8 [3, h, w]; any thread may call it.

        Args:
            picture: RGB, uint8; an array [H, W, 3] or a tensor [3, H, W].

        Raises:
            PictureError: another shape or type.
        """
        return to_network(picture, self.short_side, self.long_side)

    def predict(self, prepared: Sequence[Tensor]) -> MaskPredictions:
        """Runs the model on prepared pictures of equal shape.

        Raises:
            PictureError: none, or of different shapes.
        """
        if len({picture.shape for picture in prepared}) != 1:
            raise PictureError("pictures of one batch must have one shape")
        return self.ebseg.predict(torch.stack(list(prepared)))

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        """Text embeddings of a vocabulary's words, [P, C]; the last few vocabularies are kept."""
        digest = vocabulary.digest
        with self._lock:
            if (kept := self._texts.get(digest)) is not None:
                return kept
        text = self.ebseg.encode_text(vocabulary.words, vocabulary.templates)
        with self._lock:
            self._texts[digest] = text
        return text

    @torch.inference_mode()
    def label_map(
        self,
        predictions: MaskPredictions,
        vocabulary: Vocabulary,
        *,
        output_size: tuple[int, int],
        index: int = 0,
        text: Tensor | None = None,
        threshold: float = 0.0,
        balance: Balance | None = None,
    ) -> LabelMap:
        """The winning class of every pixel.

        A class's score is the sum over queries of class probability times mask probability. Where the
        scores of all classes add up to more than one, the confidence is the winner's share of them;
        otherwise it is the score itself, so it stays low where the model sees nothing.

        Args:
            predictions: of `predict`.
            vocabulary: K classes.
            output_size: rows and columns of the label map, pixels.
            index: which picture of the batch.
            text: embeddings of the vocabulary; computed when left out.
            threshold: pixels of a lower confidence become "other", 0..1, where their class has no threshold
                of its own.
            balance: instead of the configuration's.

        Raises:
            PictureError: an output without pixels.
        """
        own = predictions[index]
        probabilities = self._classify(own, vocabulary, text, balance)
        _check_output_size(output_size)
        labels = np.empty(output_size, np.uint16)
        confidence = np.empty(output_size, np.float32)
        all_classes = probabilities.sum(1, keepdim=True)
        values = torch.tensor(vocabulary.labels, device=probabilities.device)
        least = torch.tensor(
            [threshold if item.threshold is None else item.threshold for item in vocabulary.classes],
            device=probabilities.device,
        )
        for rows, columns, masks_QT in _tiles(own, output_size):
            candidates = contenders(masks_QT, probabilities)
            best, winner = best_class(masks_QT.T @ probabilities[:, candidates])
            certain = best / (masks_QT.T @ all_classes)[:, 0].clamp(min=1)
            wins = candidates[winner]
            label = torch.where(certain >= least[wins], values[wins], OTHER)
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            labels[rows, columns] = label.view(shape).to(torch.int32).cpu().numpy()
            confidence[rows, columns] = certain.view(shape).cpu().numpy()
        return LabelMap(labels=labels, confidence=confidence)

    @torch.inference_mode()
    def score_maps(
        self,
        predictions: MaskPredictions,
        vocabulary: Vocabulary,
        *,
        output_size: tuple[int, int],
        index: int = 0,
        text: Tensor | None = None,
        balance: Balance | None = None,
    ) -> Tensor:
        """Scores of every class at every pixel, float32 [K, H, W], 0..Q; see `label_map`."""
        own = predictions[index]
        probabilities = self._classify(own, vocabulary, text, balance)
        _check_output_size(output_size)
        scores = probabilities.new_empty(len(vocabulary), *output_size)
        for rows, columns, masks_QT in _tiles(own, output_size):
            tile = probabilities.T @ masks_QT
            scores[:, rows, columns] = tile.unflatten(1, (rows.stop - rows.start, -1))
        return scores

    def scores(
        self,
        picture: NDArray[np.uint8] | Tensor,
        vocabulary: Vocabulary,
        *,
        output_size: tuple[int, int] | None = None,
        balance: Balance | None = None,
    ) -> Tensor:
        """Picture to scores, float32 [K, H, W], at `output_size` or the picture's own size."""
        predictions = self.predict([self.prepare(picture)])
        size = output_size or _picture_size(picture)
        return self.score_maps(predictions, vocabulary, output_size=size, balance=balance)

    def segment(
        self,
        picture: NDArray[np.uint8] | Tensor,
        vocabulary: Vocabulary,
        *,
        output_size: tuple[int, int] | None = None,
        threshold: float = 0.0,
        balance: Balance | None = None,
    ) -> LabelMap:
        """Picture to label map, at `output_size` or the picture's own size."""
        predictions = self.predict([self.prepare(picture)])
        return self.label_map(
            predictions,
            vocabulary,
            output_size=output_size or _picture_size(picture),
            threshold=threshold,
            balance=balance,
        )

    def _classify(
        self, own: MaskPredictions, vocabulary: Vocabulary, text: Tensor | None, balance: Balance | None
    ) -> Tensor:
        text = self.encode_text(vocabulary) if text is None else text
        return self.ebseg.classify(own, vocabulary, text, balance)[0]


def _check_output_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise PictureError(f"an output needs at least one pixel a side, got {size[0]} x {size[1]}")


def _picture_size(picture: NDArray[np.uint8] | Tensor) -> tuple[int, int]:
    rows, columns = picture.shape[1:] if isinstance(picture, Tensor) else picture.shape[:2]
    return rows, columns


def _tiles(own: MaskPredictions, output_size: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """Mask probabilities at output size, tile by tile: rows, columns, [Q, T].

    The masks are resized to the padded picture, cropped to the picture and resized to the output. Both
    resizes act on rows and columns apart, so each axis is one small matrix.
    """
    logits_Qyx = own.mask_logits[0]
    by_row = _resizing_matrix(logits_Qyx.shape[1], own.image_size[0], output_size[0], logits_Qyx)
    by_column = _resizing_matrix(logits_Qyx.shape[2], own.image_size[1], output_size[1], logits_Qyx)
    height, width = output_size
    tile_rows, tile_columns = TILE.on(logits_Qyx.device)
    strips = [_strip(by_row, top, min(top + tile_rows, height)) for top in range(0, height, tile_rows)]
    for left in range(0, width, tile_columns):
        columns = slice(left, min(left + tile_columns, width))
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


def _resizing_matrix(cells: int, cropped: int, out: int, like: Tensor) -> Tensor:
    """One axis of: resize from stride 4 to the padded picture, crop, resize to the output; [out, cells].

    It is what bilinear resizing makes of the identity matrix, so it has the very same coefficients.
    """
    identity = torch.eye(cells, dtype=like.dtype, device=like.device)[None, None]
    padded = resize(identity, (4 * cells, cells))[:, :, :cropped]
    return resize(padded, (out, cells))[0, 0]
