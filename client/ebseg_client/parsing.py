"""Answers of the service to types. Fields that a newer service adds are ignored, all others are checked.

What is taken and what is refused is the same as by the service's own schemas, which tests hold beside it.
"""

import base64
import re
import reprlib
from collections.abc import Callable
from typing import Any, TypeVar

from ebseg_client.errors import AnswerError
from ebseg_client.fields import (
    Document,
    field,
    fields,
    file,
    listed,
    mapped,
    nullable,
    optional,
    texts,
    time,
)
from ebseg_client.labels import Maps
from ebseg_client.regions import FoundRegion, LeftOut, Panoptic, Polygon, Ring
from ebseg_client.requests import ClassSpec
from ebseg_client.results import (
    AnswerWarning,
    AskedVersions,
    FoundClass,
    Health,
    LoadedVersion,
    MissingModel,
    ModelChange,
    ModelDetails,
    ModelList,
    ModelVersion,
    QuarantinedVersion,
    Segmentation,
    Share,
    UnfinishedVersion,
    UsedBackground,
    Vocabulary,
    VocabularySummary,
)

T = TypeVar("T")
FILES = ("png", "overlay", "npy", "scores", "confidence", "soft_mask", "cutout")
_COLOR = re.compile("#[0-9a-fA-F]{6}")


def read(parse: Callable[[Any], T], document: Any) -> T:
    """Runs one of the functions below.

    Raises:
        AnswerError: the document is not what it takes.
    """
    try:
        return parse(document)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AnswerError(f"a response that no EBSeg service gives: {type(error).__name__} {error}") from None


def segmentation(document: Document) -> Segmentation:
    """The answer of `POST /v1/segment`."""
    width, height = (field(document["size"], name, int) for name in ("width", "height"))
    entries = field(document, "classes", list)
    if width < 1 or height < 1:
        raise ValueError(f"{len(entries)} classes in maps of {width} x {height}")
    files = {name: file(document, name) for name in FILES}
    counts = [_counts(entry, height, width) for entry in entries]
    rles = tuple(one for one in counts if one is not None)
    if rles and len(rles) < len(entries):
        raise ValueError(f"run lengths of {len(rles)} of {len(entries)} classes")
    maps = Maps(height, width, rles=rles if rles or not entries else None, png=files["png"], npy=files["npy"])
    other = optional(document, "other", dict)
    return Segmentation(
        width=width,
        height=height,
        classes=tuple(_found_class(entry, label, maps) for label, entry in enumerate(entries, 1)),
        background=_background(document["background"]),
        other=None if other is None else Share(**fields(other, area=int, fraction=float)),
        model=ModelVersion(**_version_fields(document["model"])),
        warnings=() if document.get("warnings") is None else listed(document, "warnings", _warning),
        caches={} if document.get("caches") is None else _caches(document["caches"]),
        timings_ms=mapped(document, "timings_ms", float),
        request_id=field(document, "request_id", str),
        png=files["png"],
        overlay_file=files["overlay"],
        regions=None
        if document.get("regions") is None
        else listed(document, "regions", lambda entry: _region(entry, (height, width))),
        regions_left_out=None
        if document.get("regions_left_out") is None
        else LeftOut(**fields(field(document, "regions_left_out", dict), count=int, area=int)),
        coco=optional(document, "coco", dict),
        panoptic=_panoptic(optional(document, "panoptic", dict)),
        geojson=optional(document, "geojson", dict),
        confidence=files["confidence"],
        soft_mask=files["soft_mask"],
        cutout=files["cutout"],
        document=document,
        _maps=maps,
        _scores=files["scores"],
    )


def _counts(entry: Document, height: int, width: int) -> str | None:
    """The run lengths of a class, if it has some."""
    rle = optional(entry, "rle", dict)
    if rle is None:
        return None
    if (size := field(rle, "size", list)) != [height, width] or not all(type(side) is int for side in size):
        raise ValueError(f"run lengths of {reprlib.repr(size)} in maps of {height} x {width}")
    return field(rle, "counts", str)


def _region(entry: Document, size: tuple[int, int]) -> FoundRegion:
    polygon = optional(entry, "polygon", dict)
    return FoundRegion(
        **fields(entry, id=int, label=int, name=str, area=int, score=float),
        bbox=_box(entry["bbox"]),
        polygon=None if polygon is None else _polygon(polygon),
        _rle=_counts(entry, *size),
        _size=size,
    )


def _panoptic(entry: Document | None) -> Panoptic | None:
    if entry is None:
        return None
    return Panoptic(base64.b64decode(field(entry, "png", str), validate=True), field(entry, "document", dict))


def _box(box: Any) -> tuple[int, ...]:
    if type(box) is not list or len(box) != 4 or not all(type(side) is int for side in box):
        raise TypeError(f"a box is {reprlib.repr(box)}")
    return tuple(box)


def _caches(entry: Document) -> dict[str, str]:
    """Both parts, and what a newer service adds to them."""
    fields(entry, text=str, prediction=str)
    return {name: value for name, value in entry.items() if isinstance(value, str)}


def _warning(entry: Document) -> AnswerWarning:
    return AnswerWarning(**fields(entry, code=str, message=str))


def _background(used: Document) -> UsedBackground:
    return UsedBackground(nullable(used, "threshold", float), field(used, "source", str))


def _found_class(entry: Document, label: int, maps: Maps) -> FoundClass:
    if field(entry, "label", int) != label:
        raise ValueError(f"class {label} has the label {entry['label']}")
    return FoundClass(
        **fields(entry, name=str, trained=bool, area=int, fraction=float),
        label=label,
        color=_color(field(entry, "color", str)),
        bbox=None if entry.get("bbox") is None else _box(entry["bbox"]),  # older services tell none
        confidence=nullable(entry, "mean_confidence", float),
        polygons=None if entry.get("polygons") is None else listed(entry, "polygons", _polygon),
        _maps=maps,
    )


def _color(text: str) -> str:
    if not _COLOR.fullmatch(text):
        raise ValueError(f"{reprlib.repr(text)} is no colour")
    return text


def _polygon(region: Document) -> Polygon:
    return Polygon(listed(region, "exterior", _corner), listed(region, "holes", _ring))


def _ring(points: Any) -> Ring:
    if type(points) is not list:
        raise TypeError(f"a ring is {reprlib.repr(points)}")
    return tuple(_corner(point) for point in points)


def _corner(point: Any) -> tuple[int, int]:
    if type(point) is not list or len(point) != 2 or not all(type(value) is int for value in point):
        raise TypeError(f"a corner is {reprlib.repr(point)}")
    return point[0], point[1]


def vocabulary_summaries(document: Document) -> list[VocabularySummary]:
    """The answer of `GET /v1/vocabularies`."""
    return list(listed(document, "vocabularies", lambda entry: VocabularySummary(**_summary_fields(entry))))


def vocabulary(document: Document) -> Vocabulary:
    """The answer of `GET` and `PUT /v1/vocabularies/{name}`."""
    return Vocabulary(**_summary_fields(document), classes=listed(document, "classes", _stored_class))


def _stored_class(entry: Document) -> ClassSpec:
    return ClassSpec(
        name=field(entry, "name", str),
        synonyms=texts(entry, "synonyms"),
        trained=optional(entry, "trained", bool),
        color=optional(entry, "color", str),
        threshold=optional(entry, "threshold", float),
        ignore=optional(entry, "ignore", bool) or False,
    )


def _summary_fields(entry: Document) -> dict[str, Any]:
    known = fields(entry, name=str, size=int, builtin=bool, shared=bool)
    return known | {"owner": optional(entry, "owner", str)}


def model_list(document: Document) -> ModelList:
    """The answer of `GET /v1/models`."""
    present = document.get("missing") is not None
    return ModelList(
        models=listed(document, "models", model_details),
        missing=listed(document, "missing", _missing_model) if present else (),
    )


def _missing_model(entry: Document) -> MissingModel:
    return MissingModel(**fields(entry, name=str, reason=str))


def model_details(document: Document) -> ModelDetails:
    """The answer of `GET /v1/models/{name}`."""
    return ModelDetails(
        **_version_fields(document),
        **fields(document, variant=str, device=str, dtype=str, default=bool, policy=str),
        license=optional(document, "license", str),
        card=optional(document, "card", dict),
        pinned=nullable(document, "pinned", int),
        last_error=nullable(document, "last_error", str),
        asked=_asked(document),
        versions=listed(document, "versions", _loaded),
        quarantined=listed(document, "quarantined", _quarantined),
        unfinished=listed(document, "unfinished", _unfinished),
        last_checked_at=None if document["last_checked_at"] is None else time(document, "last_checked_at"),
    )


def _asked(document: Document) -> AskedVersions | None:
    entry = nullable(document, "asked", dict)
    if entry is None:
        return None
    return AskedVersions(
        **fields(entry, revision=int, policy=str, changed_by=str, obeyed=bool),
        version=nullable(entry, "version", int),
        canary=nullable(entry, "canary", int),
        percent=nullable(entry, "percent", int),
        changed_at=time(entry, "changed_at"),
    )


def _loaded(entry: Document) -> LoadedVersion:
    return LoadedVersion(
        **fields(entry, version=int, digest=str, untrained=bool, variant=str, device=str, dtype=str),
        **fields(entry, role=str, in_flight=int, load_seconds=float),
        loaded_at=time(entry, "loaded_at"),
    )


def _quarantined(entry: Document) -> QuarantinedVersion:
    return QuarantinedVersion(**fields(entry, version=int, reason=str), since=time(entry, "since"))


def _unfinished(entry: Document) -> UnfinishedVersion:
    return UnfinishedVersion(**fields(entry, version=int, reason=str), since=time(entry, "since"))


def model_change(document: Document) -> ModelChange:
    """The answer of `POST /v1/models/{name}:pin` and its likes."""
    return ModelChange(field(document, "done", str), model_details(document["model"]))


def ready(document: Document) -> Health:
    """The answer of `GET /readyz` with a status of success."""
    field(document, "status", str)
    return Health(True, None, mapped(document, "models", int), mapped(document, "checks", str))


def not_ready(document: Document) -> Health:
    """Its problem document."""
    return Health(False, field(document, "detail", str), {}, {})


def _version_fields(entry: Document) -> dict[str, Any]:
    return fields(entry, name=str, version=int, digest=str, untrained=bool)
