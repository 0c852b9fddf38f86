"""Answers of the service to types. Fields that a newer service adds are ignored, all others are checked."""

import base64
import re
import reprlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from ebseg_client.errors import AnswerError
from ebseg_client.labels import Maps
from ebseg_client.requests import ClassSpec
from ebseg_client.results import (
    AnswerWarning,
    Document,
    FoundClass,
    Health,
    LoadedVersion,
    ModelChange,
    ModelDetails,
    ModelVersion,
    Polygon,
    QuarantinedVersion,
    Ring,
    Segmentation,
    Share,
    UsedBackground,
    Vocabulary,
    VocabularySummary,
)

T = TypeVar("T")
_COLOR = re.compile("#[0-9a-fA-F]{6}")


def read(parse: Callable[[Any], T], document: Any) -> T:
    """Runs one of the functions below.

    Raises:
        AnswerError: the document is not what it takes.
    """
    try:
        return parse(document)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AnswerError(f"an answer that no EBSeg service gives: {type(error).__name__} {error}") from None


def segmentation(document: Document) -> Segmentation:
    """The answer of `POST /v1/segment`."""
    width, height = (_field(document["size"], name, int) for name in ("width", "height"))
    entries = _field(document, "classes", list)
    if width < 1 or height < 1 or not entries:
        raise ValueError(f"{len(entries)} classes in maps of {width} x {height}")
    files = {
        name: base64.b64decode(document[name], validate=True)
        for name in ("png", "overlay", "npy", "scores")
        if name in document
    }
    rles = tuple(_field(entry["rle"], "counts", str) for entry in entries) if "rle" in entries[0] else None
    maps = Maps(height, width, rles=rles, png=files.get("png"), npy=files.get("npy"))
    other = document.get("other")
    return Segmentation(
        width=width,
        height=height,
        classes=tuple(_found_class(entry, label, maps) for label, entry in enumerate(entries, 1)),
        background=_background(document["background"]),
        other=None if other is None else Share(_field(other, "area", int), _field(other, "fraction", float)),
        model=ModelVersion(**_version_fields(document["model"])),
        warnings=tuple(
            AnswerWarning(_field(one, "code", str), _field(one, "message", str))
            for one in document.get("warnings") or ()
        ),
        caches=dict(document.get("caches") or {}),
        timings_ms=dict(document["timings_ms"]),
        request_id=_field(document, "request_id", str),
        png=files.get("png"),
        overlay=files.get("overlay"),
        document=document,
        _maps=maps,
        _scores=files.get("scores"),
    )


def _background(used: Document) -> UsedBackground:
    threshold = None if used["threshold"] is None else _field(used, "threshold", float)
    return UsedBackground(threshold, _field(used, "source", str))


def _found_class(entry: Document, label: int, maps: Maps) -> FoundClass:
    regions = entry.get("polygons")
    if _field(entry, "label", int) != label:
        raise ValueError(f"class {label} has the label {entry['label']}")
    color = _field(entry, "color", str)
    if not _COLOR.fullmatch(color):
        raise ValueError(f"{reprlib.repr(color)} is no colour")
    confidence = entry["mean_confidence"]
    return FoundClass(
        name=_field(entry, "name", str),
        label=label,
        color=color,
        trained=_field(entry, "trained", bool),
        area=_field(entry, "area", int),
        fraction=_field(entry, "fraction", float),
        confidence=None if confidence is None else _field(entry, "mean_confidence", float),
        polygons=None if regions is None else tuple(_polygon(region) for region in regions),
        _maps=maps,
    )


def _polygon(region: Document) -> Polygon:
    return Polygon(_ring(region["exterior"]), tuple(_ring(hole) for hole in region["holes"]))


def _ring(points: Sequence[Sequence[int]]) -> Ring:
    return tuple((x, y) for x, y in points)


def vocabulary_summaries(document: Document) -> list[VocabularySummary]:
    """The answer of `GET /v1/vocabularies`."""
    return [VocabularySummary(**_summary_fields(entry)) for entry in _field(document, "vocabularies", list)]


def vocabulary(document: Document) -> Vocabulary:
    """The answer of `GET` and `PUT /v1/vocabularies/{name}`."""
    classes = (
        ClassSpec(
            _field(entry, "name", str),
            _texts(entry, "synonyms"),
            None if entry.get("trained") is None else _field(entry, "trained", bool),
            None if entry.get("color") is None else _field(entry, "color", str),
            None if entry.get("threshold") is None else _field(entry, "threshold", float),
            entry.get("ignore") is not None and _field(entry, "ignore", bool),
        )
        for entry in _field(document, "classes", list)
    )
    return Vocabulary(**_summary_fields(document), classes=tuple(classes))


def _summary_fields(entry: Document) -> dict[str, Any]:
    return _fields(entry, name=str, size=int, builtin=bool)


def model_list(document: Document) -> list[ModelDetails]:
    """The answer of `GET /v1/models`."""
    return [model_details(entry) for entry in _field(document, "models", list)]


def model_details(document: Document) -> ModelDetails:
    """The answer of `GET /v1/models/{name}`."""
    checked = document["last_checked_at"]
    return ModelDetails(
        **_version_fields(document),
        **_fields(document, variant=str, device=str, dtype=str, default=bool, policy=str),
        license=None if document.get("license") is None else _field(document, "license", str),
        card=None if document.get("card") is None else _field(document, "card", dict),
        pinned=None if document["pinned"] is None else _field(document, "pinned", int),
        last_error=None if document["last_error"] is None else _field(document, "last_error", str),
        versions=tuple(_loaded(entry) for entry in _field(document, "versions", list)),
        quarantined=tuple(
            QuarantinedVersion(**_fields(entry, version=int, reason=str), since=_time(entry["since"]))
            for entry in _field(document, "quarantined", list)
        ),
        last_checked_at=None if checked is None else _time(checked),
    )


def _loaded(entry: Document) -> LoadedVersion:
    return LoadedVersion(
        **_fields(entry, version=int, digest=str, untrained=bool, variant=str, device=str, dtype=str),
        **_fields(entry, role=str, in_flight=int, load_seconds=float),
        loaded_at=_time(entry["loaded_at"]),
    )


def model_change(document: Document) -> ModelChange:
    """The answer of `POST /v1/models/{name}:pin` and its likes."""
    return ModelChange(_field(document, "done", str), model_details(document["model"]))


def ready(document: Document) -> Health:
    """The answer of `GET /readyz` with a status of success."""
    return Health(True, None, dict(document["models"]), dict(document["checks"]))


def not_ready(document: Document) -> Health:
    """Its problem document."""
    return Health(False, _field(document, "detail", str), {}, {})


def _version_fields(entry: Document) -> dict[str, Any]:
    return _fields(entry, name=str, version=int, digest=str, untrained=bool)


def _fields(entry: Document, **kinds: type) -> dict[str, Any]:
    return {name: _field(entry, name, kind) for name, kind in kinds.items()}


def _field(entry: Document, name: str, kind: type[T]) -> T:
    """A value of JSON that has to be of a type; whole numbers are floats as well."""
    value: T = entry[name]
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise TypeError(f"{name} is {reprlib.repr(value)}")
    return value


def _texts(entry: Document, name: str) -> tuple[str, ...]:
    return tuple(str(text) for text in _field(entry, name, list))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
