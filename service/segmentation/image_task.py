"""The answer of Hugging Face's task image-segmentation."""

import base64
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from model.confidence.caution import AnswerWarning
from service.scheduling.engine import ModelInfo
from service.schemas.image_task import TaskSegment
from service.segmentation import encode, render
from service.segmentation.answer import SegmentationResult
from service.segmentation.exchange import SCORE_DIGITS

_SEGMENTS = TypeAdapter(list[TaskSegment])


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswer:
    """An answer's bytes, the version that made it, seconds by stage, and reasons to doubt it."""

    body: bytes
    info: ModelInfo
    seconds: dict[str, float]
    warnings: tuple[AnswerWarning, ...]


def encode_task(segmentation: SegmentationResult, threshold: float) -> TaskAnswer:
    """A list of segments, one for each class that was found; slow, for a picture thread.

    Args:
        segmentation: what was found.
        threshold: segments of a lower mean confidence are left out.

    Raises:
        DeadlineExceededError: going on is in vain.
    """
    started = time.perf_counter()
    labels, names = segmentation.result.labels, segmentation.names
    area, confidence = encode.statistics(labels, segmentation.result.confidence, len(names))
    segments = []
    for label, name in enumerate(names, 1):
        if area[label] and confidence[label] >= threshold:
            segmentation.check()
            mask = Image.fromarray((labels == label).astype(np.uint8) * np.uint8(255), "L")
            segments.append(
                TaskSegment(
                    label=name,
                    score=round(float(confidence[label]), SCORE_DIGITS),
                    mask=base64.b64encode(render.png(mask)).decode("ascii"),
                )
            )
    return TaskAnswer(
        body=_SEGMENTS.dump_json(segments),
        info=segmentation.info,
        seconds={**segmentation.seconds, "encode": time.perf_counter() - started},
        warnings=segmentation.warnings,
    )
