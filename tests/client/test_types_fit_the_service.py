"""The client's types beside the service's schemas, field by field."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

import ebseg_client
from ebseg_client import regions as found_regions
from ebseg_client import requests, results
from ebseg_client.errors import FieldProblem
from service.app import create_app
from service.routes.health import HealthAnswer
from service.schemas import (
    balance,
    classes,
    inference_protocol,
    masks,
    models,
    problem,
    regions,
    segment,
    tiling,
    vocabularies,
)
from service.settings import Settings

ANSWERS: dict[type[BaseModel], type] = {
    segment.SegmentAnswer: results.Segmentation,
    segment.ClassAnswer: results.FoundClass,
    masks.Polygon: found_regions.Polygon,
    regions.RegionAnswer: found_regions.FoundRegion,
    regions.LeftOut: found_regions.LeftOut,
    regions.Panoptic: found_regions.Panoptic,
    segment.Other: results.Share,
    segment.BackgroundAnswer: results.UsedBackground,
    segment.WarningAnswer: results.AnswerWarning,
    segment.ModelAnswer: results.ModelVersion,
    problem.FieldError: FieldProblem,
    vocabularies.VocabularySummary: results.VocabularySummary,
    vocabularies.VocabularyDetails: results.Vocabulary,
    vocabularies.StoredClass: requests.ClassSpec,
    models.ModelList: results.ModelList,
    models.MissingModel: results.MissingModel,
    models.ModelDetails: results.ModelDetails,
    models.LoadedVersionDetails: results.LoadedVersion,
    models.QuarantinedVersion: results.QuarantinedVersion,
    models.UnfinishedVersion: results.UnfinishedVersion,
    models.AskedDetails: results.AskedVersions,
    models.ModelChange: results.ModelChange,
    HealthAnswer: results.Health,
}
REQUESTS: dict[type[BaseModel], type] = {
    segment.SegmentRequest: requests.SegmentOptions,
    classes.ClassEntry: requests.ClassSpec,
    regions.RegionSpec: found_regions.RegionOptions,
    balance.BalanceSpec: requests.Balance,
    tiling.TilingSpec: requests.Tiling,
    balance.WeightShares: requests.Shares,
}
# what is a type of its own in the service, and none in the client
WITHIN: dict[str, str] = {
    "Size": "width and height of Segmentation",
    "Rle": "read by FoundClass.mask and Segmentation.labels",
    "CacheAnswer": "a dict: a newer service may have further caches",
    "CardDetails": "a document: checkpoints may say more than the client knows",
    "DataSourceDetails": "part of the card",
    "LicensedPartDetails": "part of the card",
    "VocabularyList": "the list itself",
    "Problem": "ProblemError, an exception",
    "TaskSegment": "Hugging Face's task, which has a client of its own",
}
_FILE = "bytes, from base64"
# (schema, field): the client's field or fields for it, and the reason
RENAMED: dict[tuple[type[BaseModel], str], tuple[tuple[str, ...], str]] = {
    (segment.SegmentAnswer, "size"): (("width", "height"), "as images have them in Python"),
    (segment.SegmentAnswer, "caches"): (("caches",), WITHIN["CacheAnswer"]),
    (segment.SegmentAnswer, "warnings"): (("warnings",), "none is an empty tuple, not None"),
    (segment.SegmentAnswer, "npy"): (("_maps",), "labels and masks give the arrays"),
    (segment.SegmentAnswer, "scores"): (("_scores",), "scores gives the array"),
    (segment.SegmentAnswer, "png"): (("png",), _FILE),
    (segment.SegmentAnswer, "overlay"): (("overlay_file",), f"{_FILE}; overlay draws"),
    (segment.SegmentAnswer, "confidence"): (("confidence",), _FILE),
    (segment.SegmentAnswer, "soft_mask"): (("soft_mask",), _FILE),
    (segment.SegmentAnswer, "cutout"): (("cutout",), _FILE),
    (regions.Panoptic, "png"): (("png",), _FILE),
    (regions.RegionAnswer, "rle"): (("_rle", "_size"), "mask gives the array"),
    (segment.SegmentRequest, "palette"): (("palette",), "a palette's name is text, a list any sequence"),
    (segment.ClassAnswer, "mean_confidence"): (("confidence",), "a FoundClass is no pixel's"),
    (segment.ClassAnswer, "rle"): (("_maps",), "labels and masks give the arrays"),
    (vocabularies.StoredClass, "ignore"): (("ignore",), "left out is False, as in requests"),
    (models.ModelDetails, "card"): (("card",), WITHIN["CardDetails"]),
    (HealthAnswer, "status"): (("ready", "reason"), "the problem document of /readyz is the other response"),
    (segment.SegmentRequest, "classes"): ((), "an argument of its own"),
    (segment.SegmentRequest, "templates"): (("templates",), "a set's name is text, a list any sequence"),
    (segment.SegmentRequest, "background"): (("background",), 'the threshold alone; "none" is null'),
    (segment.SegmentRequest, "outputs"): (("outputs",), "any collection, in any order"),
    (segment.SegmentRequest, "output_size"): (("long_side",), "left out, the image's size"),
    (segment.SegmentRequest, "timeout_ms"): (("timeout",), "seconds, for the whole call"),
}
OWN: dict[tuple[type, str], str] = {
    (results.Segmentation, "document"): "the response as it came",
    (results.FoundClass, "_maps"): "shared by all classes",
}


def form(kind: Any) -> Any:
    """A type as both sides would write it: lists for all sequences, a client's class for its schema."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in (masks.CornerArray, found_regions.Ring):
        return "ring"
    if origin is Annotated:
        return form(arguments[0])
    if origin in (Union, types.UnionType):
        return frozenset(form(one) for one in arguments)
    if origin is Literal:
        return type(arguments[0]).__name__
    if origin in (list, tuple, Sequence) or getattr(origin, "__name__", "") == "Sequence":
        return ("list", form(arguments[0]))
    if origin in (dict, Mapping):
        return ("dict", *(form(one) for one in arguments))
    known = {**ANSWERS, **REQUESTS}.get(kind, kind)
    return getattr(known, "__name__", known)


def _or_none(kind: Any) -> frozenset[Any]:
    return frozenset({"NoneType"}) | (kind if isinstance(kind, frozenset) else {kind})


def fields_of(kind: type) -> dict[str, Any]:
    """Names and types of a dataclass or a TypedDict."""
    hints = typing.get_type_hints(kind)
    if not dataclasses.is_dataclass(kind):
        return hints
    return {one.name: hints[one.name] for one in dataclasses.fields(kind)}


@pytest.mark.parametrize(("schema", "kind"), [*ANSWERS.items(), *REQUESTS.items()])
def test_each_field_of_a_schema_is_one_of_the_client(schema: type[BaseModel], kind: type) -> None:
    mine = fields_of(kind)
    reached: set[str] = set()
    for name, field in schema.model_fields.items():
        renamed = RENAMED.get((schema, name))
        if renamed is None:
            assert name in mine, f"{kind.__name__} lacks {name}"
            given, theirs = form(mine[name]), form(field.annotation)
            if schema in REQUESTS and not dataclasses.is_dataclass(kind):  # None: left out
                given, theirs = _or_none(given), _or_none(theirs)
            assert given == theirs, f"{kind.__name__}.{name}"
            reached.add(name)
        else:
            names, reason = renamed
            assert reason
            assert set(names) <= mine.keys()
            reached.update(names)
    left = mine.keys() - reached - {name for (owner, name) in OWN if owner is kind}
    assert left == set(), f"{kind.__name__} has fields that no response has"


def test_the_tables_name_what_there_is() -> None:
    for schema, name in RENAMED:
        assert name in schema.model_fields
    for owner, name in OWN:
        assert name in fields_of(owner)
    public = set(vars(ebseg_client)["__all__"])
    assert {kind.__name__ for kind in ANSWERS.values()} <= public


def test_every_schema_of_an_answer_has_a_type_in_the_client() -> None:
    """A new route, or a new part of an old answer, shows here."""
    document = create_app(Settings()).openapi()
    protocol = {name for name, kind in vars(inference_protocol).items() if isinstance(kind, type)}
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in document["components"]["schemas"] and name not in found:
                found.add(name)
                walk(document["components"]["schemas"][name])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for path, operations in document["paths"].items():
        if not path.startswith("/v2"):
            walk([operation["responses"] for operation in operations.values()])
    assert {"SegmentAnswer", "ModelList", "HealthAnswer", "Problem"} <= found
    assert found - protocol == {schema.__name__ for schema in ANSWERS} | WITHIN.keys()
