"""An engine's result in the form that the client wants."""

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ebseg_client.drawing import overlay
from model.confidence.background import BackgroundRule
from model.confidence.caution import (
    AnswerWarning,
    caution_of_joined,
    cautions,
    cautions_of_prompts,
    untrained,
)
from model.vocabulary.classes import Vocabulary
from service.http.negotiate import Form
from service.scheduling.engine import EngineResult, ModelInfo
from service.schemas.masks import Polygon, Rle
from service.schemas.regions import LeftOut, Panoptic, RegionAnswer, RegionSpec
from service.schemas.segment import (
    AUTO_VOCABULARY,
    OF_REGIONS,
    BackgroundAnswer,
    CacheAnswer,
    ClassAnswer,
    ModelAnswer,
    Other,
    SegmentAnswer,
    SegmentRequest,
    Size,
    WarningAnswer,
)
from service.segmentation import encode, render, run_lengths
from service.segmentation.colors import reported_colors, to_hex
from service.segmentation.counted import Counts
from service.segmentation.exchange import SCORE_DIGITS, coco_instances, coco_panoptic, geojson
from service.segmentation.polygons import Region as Outline
from service.segmentation.polygons import polygons
from service.segmentation.regions import RegionSet, find_regions

# outputs that are files; base64 in JSON
FILES = frozenset({"png", "overlay", "npy", "scores", "confidence", "soft_mask", "cutout"})
FRACTION_DIGITS = 6  # a picture has millions of pixels


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
        spec: the request.
        info: the model.
        result: of the engine.
        picture: RGB, uint8 [H, W, 3] of the label map's size; needed for outputs that show it.
        background: which threshold was used.
        outputs: what to make.
        request_id: to put into the answer.
        seconds: by stage so far.
        caches: what they did; None where there are none.
        began: when the request's work began, by `time.perf_counter`.
        check: raises when going on is in vain.
        request_warnings: what there is to say of the request itself.
        counted: what is known of a label map that is too large to be looked at as a whole.
        seen: the classes of labels 1, 2, ... by their place in the vocabulary, where the label map has only
            those that are seen; None: all that are not ignored, in their order.
    """

    vocabulary: Vocabulary
    given_colors: list[str | None]
    spec: SegmentRequest
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
    counted: Counts | None = None
    seen: Sequence[int] | None = None

    @property
    def reported(self) -> Sequence[int]:
        """The classes of labels 1, 2, ..., by their place in the vocabulary."""
        return self.vocabulary.reported if self.seen is None else self.seen

    @cached_property
    def names(self) -> list[str]:
        """Of the classes that are answered; the first has label 1."""
        names = self.vocabulary.names
        return [names[index] for index in self.reported]

    @cached_property
    def trained(self) -> list[bool]:
        """Which of them count as trained."""
        return [self.result.trained[index] for index in self.reported]

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """Theirs."""
        return reported_colors(self.reported, self.given_colors, self.spec.palette)

    @cached_property
    def warnings(self) -> tuple[AnswerWarning, ...]:
        """Reasons to doubt the answer, and what there is to say of the request."""
        info, result = self.info, self.result
        if info.untrained:
            return (untrained(info.name), *self.request_warnings)
        about = range(len(self.vocabulary)) if self.seen is None else self.seen
        classes, trained = [self.vocabulary.classes[at] for at in about], [result.trained[at] for at in about]
        doubts = cautions(info.name, info.card, classes, trained, result.own)
        prompts = cautions_of_prompts(
            info.card, classes, trained, self.vocabulary.templates, info.context_length
        )
        own = self.spec.vocabulary not in (AUTO_VOCABULARY, *Vocabulary.builtin_names())  # none of ours
        asked = len(self.vocabulary)
        joined = caution_of_joined(classes, trained, info.training_words, asked) if own else ()
        return (*doubts, *prompts, *joined, *self.request_warnings)

    @property
    def subject(self) -> int:
        """The label of the class that a cut-out shows; one that no pixel has if it is not seen."""
        names = self.names
        if self.spec.subject is None:
            return 1
        return names.index(self.spec.subject) + 1 if self.spec.subject in names else len(names) + 1

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
        (output,) = segmentation.outputs
        body = make_file(segmentation, output)
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
    counts = segmentation.counted or Counts.of(
        labels, segmentation.result.confidence, len(segmentation.names), rles="rle" in segmentation.outputs
    )
    parts: dict[str, Any] = {
        "request_id": segmentation.request_id,
        "size": Size(width=width, height=height),
        "model": ModelAnswer(
            name=info.name, version=info.version, digest=info.digest, untrained=info.untrained
        ),
        "classes": _classes(segmentation, counts),
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
        parts["other"] = Other(area=int(counts.area[0]), fraction=_fraction(counts.area[0], labels))
    parts |= region_parts(segmentation)
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
        return render.webp(
            overlay(segmentation.picture, labels, segmentation.colors, names=segmentation.names)
        )
    if name == "confidence":
        return render.grey_png(result.confidence)
    if name == "cutout" and segmentation.picture is not None:
        return render.cutout_png(segmentation.picture, labels == segmentation.subject)
    if name == "soft_mask" and result.scores is not None:
        return render.grey_png(encode.share_of(result.scores, segmentation.subject))
    if name == "scores" and result.scores is not None:
        return encode.npy(result.scores)
    raise ValueError(f"nothing to make {name} of")


def _classes(segmentation: SegmentationResult, counts: Counts) -> list[ClassAnswer]:
    labels, names = segmentation.result.labels, segmentation.names
    colors, trained = segmentation.colors, segmentation.trained
    area, confidence, rles = counts.area, counts.confidence, counts.rles
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
            "fraction": _fraction(area[label], labels),
            "bbox": counts.boxes[index],
            "mean_confidence": round(float(confidence[label]), SCORE_DIGITS) if area[label] else None,
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


def only_seen(segmentation: SegmentationResult) -> SegmentationResult:
    """The same with no classes but those that are seen, the largest first, whose labels are 1, 2, ...."""
    result, reported = segmentation.result, segmentation.reported
    areas = np.bincount(result.labels.ravel(), minlength=len(reported) + 1)[1:]
    order = np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]
    renamed = np.zeros(len(reported) + 1, np.uint16)
    renamed[order + 1] = np.arange(1, len(order) + 1)
    scores = None if result.scores is None else result.scores[order]
    return replace(
        segmentation,
        result=replace(result, labels=renamed[result.labels], scores=scores),
        seen=[reported[at] for at in order],
    )


def _fraction(area: np.int64, labels: NDArray[np.uint16]) -> float:
    return round(int(area) / labels.size, FRACTION_DIGITS)


def region_parts(segmentation: SegmentationResult) -> dict[str, Any]:
    """The parts of an answer that are made of regions, as far as they are wanted."""
    outputs = segmentation.outputs & OF_REGIONS
    if not outputs:
        return {}
    wanted = segmentation.spec.regions or RegionSpec()
    found = find_regions(
        segmentation.result.labels,
        segmentation.result.confidence,
        min_area=wanted.min_area,
        max_count=wanted.max_count,
        check=segmentation.check,
    )
    names = segmentation.names
    outlines = None
    if "geojson" in outputs or ("regions" in outputs and wanted.shape == "polygon"):
        outlines = polygons(found.numbers, len(found), segmentation.check)
    parts: dict[str, Any] = {}
    if found.left_out:
        parts["regions_left_out"] = LeftOut(count=found.left_out, area=found.left_out_area)
    if "regions" in outputs:
        parts["regions"] = _regions(found, names, wanted.shape, outlines)
    if "coco" in outputs:
        parts["coco"] = coco_instances(found, names)
    if "panoptic" in outputs:
        png = base64.b64encode(render.number_png(found.numbers)).decode("ascii")
        parts["panoptic"] = Panoptic(png=png, document=coco_panoptic(found, names))
    if "geojson" in outputs and outlines is not None:
        parts["geojson"] = geojson(found, outlines, names, [to_hex(color) for color in segmentation.colors])
    return parts


def _regions(
    found: RegionSet, names: Sequence[str], shape: str, outlines: Sequence[Sequence[Outline]] | None
) -> list[RegionAnswer]:
    rles = run_lengths.rles(found.numbers, len(found)) if shape == "rle" else None
    regions = []
    for at in range(len(found)):
        label = int(found.labels[at])
        parts: dict[str, Any] = {
            "id": at + 1,
            "label": label,
            "name": names[label - 1],
            "bbox": found.boxes[at].tolist(),
            "area": int(found.areas[at]),
            "score": round(float(found.scores[at]), SCORE_DIGITS),
        }
        if rles is not None:
            parts["rle"] = Rle(**rles[at])
        if shape == "polygon" and outlines is not None:
            (outline,) = outlines[at]
            parts["polygon"] = Polygon.model_construct(exterior=outline.exterior, holes=outline.holes)
        regions.append(RegionAnswer(**parts))
    return regions
