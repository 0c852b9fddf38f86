"""Picture and vocabulary to a label map with confidences, at any size.

Shape suffixes: Q queries, K classes, H and W rows and columns of the output.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ModelError, PictureError
from model.network.balance import Balance
from model.network.blended import ClassifiedTile, TiledBand, blended_labels, blended_scores
from model.network.ebseg import EBSeg
from model.network.label_map import ClassifiedMasks, LabelMap, check_output_size, label_maps, scored_parts
from model.network.predictions import MaskPredictions
from model.tiling import TileLayout
from model.transforms import to_network
from model.vocabulary.classes import Vocabulary

TEXTS_KEPT = 16  # vocabularies whose embeddings are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRequest:
    """One label map that is wanted; see `Segmenter.label_map`.

    Attributes:
        predictions: of one picture.
        vocabulary: K classes.
        output_size: rows and columns, pixels.
        text: embeddings of the vocabulary; computed when left out.
        threshold: for classes that have none of their own, 0..1.
        balance: instead of the configuration's.
    """

    predictions: MaskPredictions
    vocabulary: Vocabulary
    output_size: tuple[int, int]
    text: Tensor | None = None
    threshold: float = 0.0
    balance: Balance | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BandRequest:
    """A band of the label map of a picture that was predicted in tiles; see `model.tiling`.

    Attributes:
        layout: of its tiles.
        band: which of the layout's bands.
        predictions: of each tile that the band needs, by its row and column.
        vocabulary, text, threshold, balance: as of `LabelRequest`.
    """

    layout: TileLayout
    band: int
    predictions: Mapping[tuple[int, int], MaskPredictions]
    vocabulary: Vocabulary
    text: Tensor | None = None
    threshold: float = 0.0
    balance: Balance | None = None


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
            raise PictureError("images of one batch must have one shape")
        return self.ebseg.predict(torch.stack(list(prepared)))

    def predict_each(
        self, prepared: Sequence[Tensor], shape: tuple[int, int] | None = None
    ) -> list[MaskPredictions]:
        """Runs the model on prepared pictures of one padded shape, and of any sizes within it.

        Args:
            prepared: pictures.
            shape: see `EBSeg.predict_each`.

        Raises:
            PictureError: none, or of different padded shapes.
        """
        return self.ebseg.predict_each(prepared, shape)

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
        request = LabelRequest(
            predictions=predictions[index],
            vocabulary=vocabulary,
            output_size=output_size,
            text=text,
            threshold=threshold,
            balance=balance,
        )
        return self.label_maps([request])[0]

    @torch.inference_mode()
    def label_maps(self, requests: Sequence[LabelRequest]) -> list[LabelMap]:
        """Several label maps, of any sizes and vocabularies; on a GPU the host waits once for all of them.

        Raises:
            PictureError: an output without pixels.
        """
        return label_maps(
            [
                ClassifiedMasks(
                    logits=request.predictions.mask_logits[0],
                    image_size=request.predictions.image_size,
                    probabilities=self._classify(
                        request.predictions, request.vocabulary, request.text, request.balance
                    ),
                    labels=request.vocabulary.labels,
                    least=_least(request),
                    output_size=request.output_size,
                )
                for request in requests
            ]
        )

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
        check_output_size(output_size)
        scores = probabilities.new_empty(len(vocabulary), *output_size)
        for rows, columns, masks_QT in scored_parts(own, output_size):
            tile = probabilities.T @ masks_QT
            scores[:, rows, columns] = tile.unflatten(1, (rows.stop - rows.start, -1))
        return scores

    @torch.inference_mode()
    def band_map(self, request: BandRequest) -> LabelMap:
        """The winning class of every pixel of a band; scores as of `label_map`, tiles blended."""
        return blended_labels(self._band(request), request.vocabulary.labels, _least(request))

    @torch.inference_mode()
    def band_scores(self, request: BandRequest) -> Tensor:
        """Scores of every class at every pixel of a band, float32 [K, H, W], 0..Q."""
        band = self._band(request)
        size = (band.rows.stop - band.rows.start, band.layout.output[1])
        scores = band.tiles[0].probabilities.new_empty(len(request.vocabulary), *size)
        for rows, columns, block_TK in blended_scores(band):
            scores[:, rows, columns] = block_TK.T.unflatten(1, (rows.stop - rows.start, -1))
        return scores

    def _band(self, request: BandRequest) -> TiledBand:
        return TiledBand(
            layout=request.layout,
            rows=request.layout.band(request.band),
            tiles=[
                ClassifiedTile(
                    row=row,
                    column=column,
                    logits=own.mask_logits[0],
                    image_size=own.image_size,
                    probabilities=self._classify(own, request.vocabulary, request.text, request.balance),
                )
                for (row, column), own in request.predictions.items()
            ],
        )

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


def _least(request: LabelRequest | BandRequest) -> list[float]:
    """Confidence of each class below which a pixel becomes "other"."""
    return [
        request.threshold if item.threshold is None else item.threshold for item in request.vocabulary.classes
    ]


def _picture_size(picture: NDArray[np.uint8] | Tensor) -> tuple[int, int]:
    rows, columns = picture.shape[1:] if isinstance(picture, Tensor) else picture.shape[:2]
    return rows, columns
