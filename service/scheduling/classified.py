"""Predictions and vocabularies to label maps, and scores if they are wanted, as `TorchEngine` makes them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.network.copies import copies_of, download, upload
from model.network.predictions import MaskPredictions
from model.segmenter import BandRequest, LabelRequest, Segmenter
from model.vocabulary.classes import Vocabulary
from service.scheduling.engine import EngineResult, Job, TiledPrediction


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture's `MaskPredictions`, and how sure the model is of its own words there."""

    masks: MaskPredictions
    own: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.masks.nbytes


def classified(
    segmenter: Segmenter, predictions: Sequence[Prediction | TiledPrediction], jobs: Sequence[Job]
) -> list[EngineResult]:
    """What becomes of each; the host waits once for all maps, and once for all scores or a band of one."""
    if any(isinstance(one, TiledPrediction) for one in predictions):
        return [
            _band(segmenter, one, job)
            if isinstance(one, TiledPrediction)
            else _pictures(segmenter, [one], [job])[0]
            for one, job in zip(predictions, jobs, strict=True)
        ]
    return _pictures(segmenter, [one for one in predictions if isinstance(one, Prediction)], jobs)


def on_device(masks: MaskPredictions, device: torch.device) -> MaskPredictions:
    """Predictions on a device, in one copy."""
    if masks.device == device:
        return masks
    there = list(masks.tensors().values())
    moved = iter(download(there) if device.type == "cpu" else copies_of(device).upload(there))
    return masks.map(lambda _: next(moved))  # in the same order


def _pictures(
    segmenter: Segmenter, predictions: Sequence[Prediction], jobs: Sequence[Job]
) -> list[EngineResult]:
    began = time.perf_counter()
    requests = [_request(segmenter, one, job) for one, job in zip(predictions, jobs, strict=True)]
    label_maps = segmenter.label_maps(requests)
    scores = [
        _scores(segmenter, request) if job.scores else None
        for request, job in zip(requests, jobs, strict=True)
    ]
    seconds = {"classify": time.perf_counter() - began}
    return [
        EngineResult(
            labels=label_map.labels,
            confidence=label_map.confidence,
            scores=own_scores,
            trained=segmenter.ebseg.trained(job.vocabulary),
            own=prediction.own,
            seconds=seconds,
        )
        for prediction, job, label_map, own_scores in zip(predictions, jobs, label_maps, scores, strict=True)
    ]


def _request(segmenter: Segmenter, prediction: Prediction, job: Job) -> LabelRequest:
    masks = on_device(prediction.masks, segmenter.ebseg.device)
    return LabelRequest(
        predictions=masks,
        vocabulary=job.vocabulary,
        output_size=job.output_size,
        text=upload(_text(job), masks.device),
        threshold=job.threshold,
        balance=job.balance,
    )


def _scores(segmenter: Segmenter, request: LabelRequest) -> NDArray[np.float16]:
    """Of the classes that are reported, float16 [K, H, W]."""
    maps = segmenter.score_maps(
        request.predictions,
        request.vocabulary,
        output_size=request.output_size,
        text=request.text,
        balance=request.balance,
    )
    return _reported(maps, request.vocabulary)


def _band(segmenter: Segmenter, prediction: TiledPrediction, job: Job) -> EngineResult:
    began = time.perf_counter()
    device = segmenter.ebseg.device
    request = BandRequest(
        layout=prediction.layout,
        band=prediction.band,
        predictions={place: on_device(tile.masks, device) for place, tile in prediction.tiles.items()},
        vocabulary=job.vocabulary,
        text=upload(_text(job), device),
        threshold=job.threshold,
        balance=job.balance,
    )
    label_map = segmenter.band_map(request)
    scores = _reported(segmenter.band_scores(request), job.vocabulary) if job.scores else None
    own = [tile.own for tile in prediction.tiles.values() if tile.own is not None]
    return EngineResult(
        labels=label_map.labels,
        confidence=label_map.confidence,
        scores=scores,
        trained=segmenter.ebseg.trained(job.vocabulary),
        own=sum(own) / len(own) if own else None,
        seconds={"classify": time.perf_counter() - began},
    )


def _reported(maps: Tensor, vocabulary: Vocabulary) -> NDArray[np.float16]:
    places = upload(torch.tensor(vocabulary.reported), maps.device)
    found: NDArray[np.float16] = download([maps[places].half()])[0].numpy()
    return found


def _text(job: Job) -> Tensor:
    if job.text is None:
        raise ValueError("a job needs its text embeddings before it is classified")
    return job.text
