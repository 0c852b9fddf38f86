"""A checkpoint in this process, without a server: what `ebseg segment` and `ebseg.load` segment with."""

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray

from ebseg_client.parsing import segmentation
from model.confidence.caution import of_picture
from model.segmenter import TEXTS_KEPT
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.errors import UsageError
from service.local.picture_result import PictureResult
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, EngineResult, Job, TiledPrediction, unit_rows
from service.scheduling.torch_engine import device_names, load_engine
from service.schemas.segment import AUTO_VOCABULARY, SegmentRequest
from service.segmentation.answer import SegmentationResult, json_answer, only_seen
from service.segmentation.counted import Counts
from service.segmentation.encode import resized
from service.segmentation.outputs import OF_SCORES, check_outputs
from service.segmentation.requested import given_colors, output_size, to_balance
from service.segmentation.tiled import BandsTogether, chosen_layout

Part = Callable[[tuple[slice, slice]], NDArray[np.uint8]]


class LocalModel:
    """A loaded checkpoint that segments one picture at a time; callers on other threads wait for their turn.

    The embeddings of the last vocabularies are kept, and what the network made of the last picture: other
    classes on the same picture cost little.

    Args:
        engine: the model on its device.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._turn = threading.Lock()
        self._texts: LRUCache[str, torch.Tensor] = LRUCache(TEXTS_KEPT)
        self._last: tuple[bytes, Any] | None = None

    def segment(
        self, picture: NDArray[np.uint8], spec: SegmentRequest, vocabulary: Vocabulary, *, max_pixels: int
    ) -> EngineResult:
        """What the service does with one picture, without its queue.

        Args:
            picture: RGB, uint8 [H, W, 3].
            spec: the request: threshold and size of the answer.
            vocabulary: the request's.
            max_pixels: of the answer.

        Raises:
            PictureError: a shape that the model cannot take.
            ServiceError: a size that is too large, or a balance that this model cannot do.
        """
        size = output_size(spec.output_size, (picture.shape[0], picture.shape[1]), max_pixels)
        outputs = frozenset(spec.outputs or ())
        check_outputs(outputs, size, len(vocabulary))
        layout = chosen_layout(spec.tiling, (picture.shape[0], picture.shape[1]), size)
        if layout is not None:
            return self.segment_tiles(picture.__getitem__, layout, spec, vocabulary)
        with self._turn:
            began = time.perf_counter()
            prepared = self.engine.prepare(picture)
            digest = hashlib.sha256(picture.tobytes() + repr(picture.shape).encode()).digest()
            if self._last is None or self._last[0] != digest:
                self._last = None  # makes room first
                self._last = (digest, self.engine.predict([prepared])[0])
            prediction = self._last[1]
            predicted = time.perf_counter()
            text = self.embedded(vocabulary)
            embedded = time.perf_counter()
            result = self.engine.classify(prediction, self._job(prediction, spec, vocabulary, text, size))
        seconds = {"predict": predicted - began, "text": embedded - predicted, **result.seconds}
        return dataclasses.replace(result, seconds=seconds)

    def segment_tiles(
        self, part: Part, layout: TileLayout, spec: SegmentRequest, vocabulary: Vocabulary
    ) -> EngineResult:
        """The same of a picture in tiles; a tile of a picture is predicted when its row's turn comes.

        Args:
            part: the pixels [h, w, 3] of a tile's rows and columns.
            layout: of the tiles.
            spec, vocabulary: as of `segment`.
        """
        together = BandsTogether(layout.output)
        seconds: dict[str, float] = {"predict": 0.0, "text": 0.0, "classify": 0.0}
        for rows, band in self.bands(part, layout, spec, vocabulary):
            together.add(rows, band)
            for stage in seconds:
                seconds[stage] += band.seconds[stage]
        return together.result(seconds, {})

    def bands(
        self, part: Part, layout: TileLayout, spec: SegmentRequest, vocabulary: Vocabulary
    ) -> Iterator[tuple[slice, EngineResult]]:
        """The output's rows of each band, and its result; arguments as of `segment_tiles`."""
        found: dict[tuple[int, int], Any] = {}
        for row in range(layout.rows.count):
            with self._turn:
                began = time.perf_counter()
                for column in range(layout.columns.count):
                    (found[row, column],) = self.engine.predict(
                        [self.engine.prepare(part(layout.part(row, column)))]
                    )
                predicted = time.perf_counter()
                needed = layout.needed(row)
                for place in [place for place in found if place[0] < min(needed, default=row)]:
                    del found[place]
                if not needed:
                    continue
                text = self.embedded(vocabulary)
                embedded = time.perf_counter()
                band = TiledPrediction(
                    layout=layout, band=row, tiles={at: found[at] for at in found if at[0] in needed}
                )
                result = self.engine.classify(band, self._job(band, spec, vocabulary, text, band.size))
            seconds = {"predict": predicted - began, "text": embedded - predicted, **result.seconds}
            yield layout.band(row), dataclasses.replace(result, seconds=seconds)

    def _job(
        self,
        prediction: Any,
        spec: SegmentRequest,
        vocabulary: Vocabulary,
        text: torch.Tensor,
        size: tuple[int, int],
    ) -> Job:
        return Job(
            engines=(self.engine,),
            prepared=None,
            prediction=prediction,
            vocabulary=vocabulary,
            text=text,
            output_size=size,
            threshold=spec.background_for(self.engine.info.card).least,
            balance=to_balance(spec.balance, self.engine.info.balance),
            scores=bool(OF_SCORES.intersection(spec.outputs or ())),
            deadline=Deadline(float("inf")),
        )

    def embedded(self, vocabulary: Vocabulary) -> torch.Tensor:
        """Text embeddings of the vocabulary's words, [words, templates, C] of length 1; computed once."""
        digest = vocabulary.digest
        if digest not in self._texts:
            self._texts[digest] = unit_rows(self.engine.embed(vocabulary.words, vocabulary.templates))
        return self._texts[digest]


def picture_result(
    model: LocalModel,
    spec: SegmentRequest,
    vocabulary: Vocabulary,
    result: EngineResult,
    *,
    picture: NDArray[np.uint8] | None,
    seconds: dict[str, float],
    began: float,
    remarks: Sequence[str] = (),
    counted: Counts | None = None,
) -> PictureResult:
    """A result with all that the service would answer.

    Args:
        model, spec, vocabulary, result: who made it, and of what.
        picture: RGB, uint8 [H, W, 3]; None if no output shows it.
        seconds: by stage.
        began: when the work began, by `time.perf_counter`.
        remarks: what decoding left out of account.
        counted: of a label map that is too large to be looked at as a whole.
    """
    if picture is not None:
        height, width = result.labels.shape
        picture = resized(picture, (height, width))
    made = SegmentationResult(
        vocabulary=vocabulary,
        given_colors=given_colors(spec, vocabulary),
        spec=spec,
        info=model.engine.info,
        result=result,
        picture=picture,
        background=spec.background_for(model.engine.info.card),
        outputs=frozenset(spec.outputs or ["rle"]),
        request_id="",
        seconds=seconds,
        began=began,
        caches=None,
        check=Deadline(float("inf")).check,
        request_warnings=tuple(map(of_picture, remarks)),
        counted=counted,
    )
    if spec.vocabulary == AUTO_VOCABULARY:
        made = only_seen(made)
    document: dict[str, Any] = json_answer(made).model_dump(mode="json", exclude_unset=True)
    read_back = segmentation(document)
    del document["request_id"]  # of no request
    return PictureResult(answer=read_back, document=document, labels=made.result.labels, picture=picture)


def load_local(folder: Path, *, device: str, dtype: str) -> LocalModel:
    """Loads a checkpoint folder on one device.

    Raises:
        UsageError: several devices.
        SettingsError: the device is not here.
        CheckpointError: the folder is not what it should be.
    """
    if "," in device:
        raise UsageError(f"images are segmented on one device without a service, got {device}")
    engine = load_engine(folder, device=device_names(device)[0], dtype=dtype, golden=False)
    return LocalModel(engine)
