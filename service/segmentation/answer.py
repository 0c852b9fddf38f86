"""An engine's result in the form that the client wants."""

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.confidence.background import BackgroundRule
from model.confidence.caution import AnswerWarning, cautions, untrained
from model.vocabulary.classes import Vocabulary
from service.http.negotiate import OUTPUT_OF, Form
from service.scheduling.engine import EngineResult, ModelInfo
from service.schemas.segment import (
    BackgroundAnswer,
    CacheAnswer,
    ClassAnswer,
    ModelAnswer,
    Other,
    Polygon,
    Rle,
    SegmentAnswer,
    Size,
    WarningAnswer,
)
from service.segmentation import encode, render
from service.segmentation.colors import reported_colors, to_hex
from service.segmentation.polygons import polygons

FILES = frozenset({"png", "overlay", "npy", "scores"})  # outputs that are files; base64 in JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Caches:
    """What the caches did for a request: where its text embeddings came from, and its prediction."""

    text: str
    prediction: str


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """Everything that an answer is made of.

    Attributes:
        vocabulary: K classes, of which some may be ignored.
        given_colors: the caller's, one a class.
        info: the model.
        result: of the engine.
        picture: RGB, uint8 [H, W, 3] of the label map's size; needed for an overlay.
        background: which threshold was used.
        outputs: what to make.
        request_id: to put into the answer.
        seconds: by stage so far.
        caches: what they did; None where there are none.
        began: when the request's work began, by `time.perf_counter`.
        check: raises when going on is in vain.
        request_warnings: what there is to say of the request itself.
    """

    vocabulary: Vocabulary
    given_colors: list[str | None]
    info: ModelInfo
    result: EngineResult
    picture: NDArray[np.uint8] | None
    background: BackgroundRule
    outputs: frozenset[str]
    request_id: str
    seconds: dict[str, float]
    began: float
    caches: Caches | None
    check: Callable[[], None]
    request_warnings: tuple[AnswerWarning, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """Of the classes that are not ignored; the first has label 1."""
        names = self.vocabulary.names
        return [names[index] for index in self.vocabulary.reported]

    @cached_property
    def trained(self) -> list[bool]:
        """Which of them count as trained."""
        return [self.result.trained[index] for index in self.vocabulary.reported]

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """Theirs."""
        return reported_colors(self.vocabulary, self.given_colors)

    @cached_property
    def warnings(self) -> tuple[AnswerWarning, ...]:
        """Reasons to doubt the answer, and what there is to say of the request."""
        info, result = self.info, self.result
        if info.untrained:
            return (untrained(info.name), *self.request_warnings)
        doubts = cautions(info.name, info.card, self.vocabulary.classes, result.trained, result.own)
        return (*doubts, *self.request_warnings)

    @property
    def may_be_other(self) -> bool:
        """Whether a pixel can be of no class."""
        own = any(item.ignored or item.threshold is not None for item in self.vocabulary.classes)
        return own or self.background.threshold is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Bytes for the client, the version that made them, the time of each stage, and reasons to doubt them."""

    body: bytes
    media_type: Form
    info: ModelInfo
    seconds: dict[str, float]
    warnings: tuple[AnswerWarning, ...] = ()


def encode_answer(segmentation: SegmentationResult, form: Form) -> Answer:
    """Encodes an answer; slow, for a picture thread.

    Raises:
        DeadlineExceededError: going on is in vain.
    """
    segmentation.check()
    started = time.perf_counter()
    if form == "application/json":
        # unset parts are left out; a null that was set, as in mean_confidence, stays
        body = json_answer(segmentation).model_dump_json(exclude_unset=True).encode()
    else:
        body = make_file(segmentation, OUTPUT_OF[form])
    seconds = {**segmentation.seconds, "encode": time.perf_counter() - started}
    return Answer(
        body=body,
        media_type=form,
        info=segmentation.info,
        seconds=seconds,
        warnings=segmentation.warnings,
    )


def json_answer(segmentation: SegmentationResult) -> SegmentAnswer:
    """The answer as a document; its `timings_ms` count up to here."""
    started = time.perf_counter()
    labels, info = segmentation.result.labels, segmentation.info
    height, width = labels.shape
    area, confidence = encode.statistics(labels, segmentation.result.confidence, len(segmentation.names))
    parts: dict[str, Any] = {
        "request_id": segmentation.request_id,
        "size": Size(width=width, height=height),
        "model": ModelAnswer(
            name=info.name, version=info.version, digest=info.digest, untrained=info.untrained
        ),
        "classes": _classes(segmentation, area, confidence),
    }
    if segmentation.caches is not None:
        parts["caches"] = CacheAnswer(
            text=segmentation.caches.text, prediction=segmentation.caches.prediction
        )
    if segmentation.warnings:
        parts["warnings"] = [
            WarningAnswer(code=one.code, message=one.message) for one in segmentation.warnings
        ]
    background = segmentation.background
    parts["background"] = BackgroundAnswer(threshold=background.threshold, source=background.source)
    if segmentation.may_be_other:
        parts["other"] = Other(area=int(area[0]), fraction=int(area[0]) / labels.size)
    for name in segmentation.outputs & FILES:
        segmentation.check()
        parts[name] = base64.b64encode(make_file(segmentation, name)).decode("ascii")
    now = time.perf_counter()
    seconds = {**segmentation.seconds, "encode": now - started, "total": now - segmentation.began}
    parts["timings_ms"] = {stage: round(1000 * value, 3) for stage, value in seconds.items()}
    return SegmentAnswer(**parts)


def make_file(segmentation: SegmentationResult, name: str) -> bytes:
    """One of `FILES`.

    Raises:
        ValueError: what it is made of was not kept.
    """
    labels, result = segmentation.result.labels, segmentation.result
    if name == "png":
        return render.label_png(labels, segmentation.names, segmentation.colors)
    if name == "npy":
        return encode.npy(labels)
    if name == "overlay" and segmentation.picture is not None:
        return render.webp(render.overlay(segmentation.picture, labels, segmentation.colors))
    if name == "scores" and result.scores is not None:
        return encode.npy(result.scores)
    raise ValueError(f"nothing to make {name} of")


def _classes(
    segmentation: SegmentationResult, area: NDArray[np.int64], confidence: NDArray[np.float64]
) -> list[ClassAnswer]:
    labels, names = segmentation.result.labels, segmentation.names
    colors, trained = segmentation.colors, segmentation.trained
    rles = encode.rles(labels, len(names)) if "rle" in segmentation.outputs else None
    regions = polygons(labels, len(names), segmentation.check) if "polygons" in segmentation.outputs else None
    classes = []
    for index, name in enumerate(names):
        label = index + 1
        parts: dict[str, Any] = {
            "name": name,
            "label": label,
            "color": to_hex(colors[index]),
            "trained": trained[index],
            "area": int(area[label]),
            "fraction": int(area[label]) / labels.size,
            "mean_confidence": float(confidence[label]) if area[label] else None,
        }
        if rles is not None:
            parts["rle"] = Rle(**rles[index])
        if regions is not None:
            # as it is: to look at every corner takes longer than to find it
            parts["polygons"] = [
                Polygon.model_construct(exterior=one.exterior, holes=one.holes) for one in regions[index]
            ]
        classes.append(ClassAnswer(**parts))
    return classes
