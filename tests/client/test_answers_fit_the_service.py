"""Answers changed in every place: what the service's schemas do not have is the client's own error."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from ebseg_client import AnswerError, ClientError, calls, parsing, requests, results
from ebseg_client.errors import FieldProblem, ProblemError
from ebseg_client.exchange import Call, Retry, Send, exchange
from ebseg_client.regions import Polygon
from service.routes.health import HealthAnswer
from service.schemas import models, segment, vocabularies
from tests.service.commands.test_remote_commands import DETAILS
from tests.service.scripted_server import ANSWER

CARD = {
    "domain": "photographs",
    "words": ["sky"],
    "training_data": [{"name": "COCO-Stuff", "terms": "CC BY 4.0"}],
    "parts": [{"name": "encoder", "license": "Apache-2.0"}],
    "scores": {"miou": 77.0},
    "threshold": 0.4,
    "threshold_note": "measured",
    "calibration": {"f1": 0.8},
    "confidence": {"0.5": 0.6},
    "notes": "none",
}
MODEL = DETAILS | {"card": CARD}
POLYGON = {"exterior": [[0, 0], [0, 1], [2, 1]], "holes": [[[1, 0]]]}
FOUND = ANSWER["classes"][0] | {"polygons": [POLYGON], "bbox": [1, 2, 3, 4]}
REGION = {
    "id": 1,
    "label": 1,
    "name": "sky",
    "bbox": [1, 2, 3, 4],
    "area": 2,
    "score": 0.5,
    "polygon": POLYGON,
}
# every field that an answer may have
COMPLETE: dict[type[BaseModel], tuple[Callable[[Any], object], dict[str, Any]]] = {
    segment.SegmentAnswer: (
        parsing.segmentation,
        ANSWER
        | {
            "classes": [FOUND],
            "warnings": [{"code": "untrained", "message": "random"}],
            "caches": {"text": "l1", "prediction": "miss"},
            "other": {"area": 1, "fraction": 0.5},
            "background": {"threshold": 0.5, "source": "card"},
            **dict.fromkeys(parsing.FILES, "QUJD"),
            "regions": [REGION | {"rle": FOUND["rle"]}],
            "regions_left_out": {"count": 1, "area": 2},
            "coco": {"images": []},
            "panoptic": {"png": "QUJD", "document": {"images": []}},
            "geojson": {"features": []},
        },
    ),
    models.ModelList: (
        parsing.model_list,
        {"models": [MODEL], "missing": [{"name": "other", "reason": "away"}]},
    ),
    models.ModelChange: (parsing.model_change, {"done": "it serves", "model": MODEL}),
    vocabularies.VocabularyList: (
        parsing.vocabulary_summaries,
        {"vocabularies": [{"name": "a", "size": 1, "builtin": False, "shared": True, "owner": "shop"}]},
    ),
    vocabularies.VocabularyDetails: (
        parsing.vocabulary,
        {
            "name": "harbour",
            "size": 1,
            "builtin": False,
            "shared": False,
            "owner": "shop",
            "classes": [
                {
                    "name": "boat",
                    "synonyms": ["ship"],
                    "trained": True,
                    "color": "#00ff00",
                    "threshold": 0.5,
                    "ignore": True,
                }
            ],
        },
    ),
    HealthAnswer: (
        parsing.ready,
        {"status": "ready", "models": {"m": 3}, "checks": {"devices": "ok"}},
    ),
}
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    7,
    2**70,
    0.5,
    1.0,
    "",
    "text",
    [],
    {},
    [[]],
    [{}],
    [None],
    ["a"],
    {"a": 1},
]
# where the client takes what today's service never says: places end so
TAKEN = {
    "background.source": "a newer service may have further words",
    "warnings.0.code": "a newer service may have further words",
    "role": "a newer service may have further words",
    "status": "it is said by the HTTP status as well",
    "license": "left out by services that have no cards yet",
    "card": "left out by services that have no cards yet",
    "missing": "left out by services that do not tell yet",
}
WITHIN_CARDS = ".card."
# where the client takes less than the schema, which does not say all that holds
REFUSED = {
    "size.width": "maps have pixels",
    "size.height": "maps have pixels",
    "classes.0.label": "labels count from 1",
    "classes.0.color": "#rrggbb",
    "classes.0.rle": "of all classes or of none, and of the maps' size",
    "rle.size": "that of the maps",
    "rle.size.0": "that of the maps",
    "rle.size.1": "that of the maps",
    "png": "base64",
    "overlay": "base64",
    "npy": "base64",
    "scores": "base64",
    "confidence": "base64",
    "soft_mask": "base64",
    "cutout": "base64",
}
RINGS = (".exterior", ".holes")  # whose elements the service's schema, which only writes them, does not check


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Ways to all values of a document."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed_at(document: Any, path: tuple[str | int, ...], *value: Any) -> Any:
    """A copy with another value at a place, or with none."""
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value:
        place[path[-1]] = value[0]
    else:
        del place[path[-1]]
    return made


def takes(parse: Callable[[Any], object], document: Any) -> bool:
    """Whether the client takes a document; whatever else it raises is the test's failure."""
    try:
        parsing.read(parse, json.loads(json.dumps(document)))
    except AnswerError:
        return False
    return True


def holds(schema: type[BaseModel], document: Any) -> bool:
    """Whether the service's schema has such documents."""
    try:
        schema.model_validate_json(json.dumps(document), strict=True)
    except ValidationError:
        return False
    return True


def ends(place: str, names: Mapping[str, str]) -> bool:
    return any(place == name or place.endswith(f".{name}") for name in names)


@pytest.mark.parametrize("schema", COMPLETE)
def test_the_client_takes_what_the_schemas_say_and_nothing_else(schema: type[BaseModel]) -> None:
    parse, document = COMPLETE[schema]
    assert holds(schema, document)
    assert takes(parse, document)
    wrong = []
    tried = 0
    for path in places(document):
        place = ".".join(map(str, path))
        changed = [changed_at(document, path, value) for value in VALUES] + [changed_at(document, path)]
        for one in changed:
            tried += 1
            here, there = takes(parse, one), holds(schema, one)
            if any(ring in place for ring in RINGS) or WITHIN_CARDS in place:
                continue  # never a fault, which `takes` has seen
            if here and not there and not ends(place, TAKEN):
                wrong.append(f"taken: {place} of {one}")
            if there and not here and not ends(place, REFUSED):
                wrong.append(f"refused: {place} of {one}")
    assert wrong == []
    assert tried > 50


@pytest.mark.parametrize("schema", COMPLETE)
def test_the_documents_hold_every_field(schema: type[BaseModel]) -> None:
    def complete(one: BaseModel) -> None:
        for name in type(one).model_fields:
            value = getattr(one, name)
            assert value not in (None, [], {}), f"{type(one).__name__}.{name}"
            for inner in value if isinstance(value, list) else [value]:
                if isinstance(inner, BaseModel):
                    complete(inner)

    complete(schema.model_validate(COMPLETE[schema][1]))


def test_rings_and_numbers_that_are_none() -> None:
    parse, document = COMPLETE[segment.SegmentAnswer]
    ring = ("classes", 0, "polygons", 0, "exterior")
    for corner in ("ab", [1], [1, 2, 3], [1, "2"], [1.0, 2], [True, 2], None, {"x": 1}):
        assert not takes(parse, changed_at(document, (*ring, 1), corner)), corner
    for value in (float("nan"), float("inf"), 10**400):
        for path in (("classes", 0, "fraction"), ("timings_ms", "total"), ("background", "threshold")):
            assert not takes(parse, changed_at(document, path, value)), (path, value)
    assert not takes(parse, changed_at(document, ("classes", 0, "rle", "size"), [2, 1]))
    two = changed_at(document, ("classes",), [FOUND, changed_at(FOUND | {"label": 2}, ("rle",))])
    assert not takes(parse, two)  # run lengths of one class of two


def test_values_arrive_in_their_fields() -> None:
    got = parsing.model_list(COMPLETE[models.ModelList][1])
    assert [model.name for model in got] == ["ebseg-base"] == [got[0].name]
    assert (len(got), got.missing) == (1, (results.MissingModel("other", "away"),))
    assert got[0].card == CARD
    assert got[0].last_checked_at == datetime.fromisoformat("2026-01-02T03:04:07+00:00")
    found = parsing.segmentation(COMPLETE[segment.SegmentAnswer][1])
    assert (found.caches, found.timings_ms) == ({"text": "l1", "prediction": "miss"}, {"total": 1.0})
    assert found.classes[0].polygons == (Polygon(((0, 0), (0, 1), (2, 1)), (((1, 0),),)),)
    assert found.other == results.Share(1, 0.5)
    stored = parsing.vocabulary(COMPLETE[vocabularies.VocabularyDetails][1])
    assert stored.classes == (requests.ClassSpec("boat", ("ship",), True, "#00ff00", 0.5, True),)


def answered(call: Call[Any], status: int, body: bytes, headers: Mapping[str, str]) -> ClientError | None:
    """What a call makes of an answer; it is not sent again."""
    steps = exchange(call, seconds=60, retry=Retry(attempts=1), request_id="r")
    send = next(steps)
    assert isinstance(send, Send)
    request = httpx.Request(send.method, f"http://service{send.path}")
    try:
        steps.send(httpx.Response(status, content=body, headers=headers, request=request))
    except StopIteration:
        return None
    except ClientError as error:
        str(error)
        return error
    raise AssertionError("neither a result nor an error")


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 404, 413, 422, 429, 500, 503, 504, 599])
def test_any_body_under_any_status_is_the_clients_own_error(status: int) -> None:
    problem = {"type": "urn:ebseg:problem:queue-full", "title": "T", "status": status, "detail": "d"}
    odd: list[Any] = [problem | {name: value} for name in (*problem, "errors") for value in VALUES]
    odd += [
        problem | {"errors": [{"field": 3}, "text", None, {"field": "a", "message": "b"}]},
        3,
        None,
        "",
        [],
    ]
    bodies = [json.dumps(one).encode() for one in odd]
    bodies += [b"", b"{", b"\xff\xfe", 100_000 * b"[", b"1" * 5000, b'{"a":' * 50_000, b"NaN"]
    kinds = ["application/json", "text/html; charset=hex", "text/html; charset=utf-16", "", "x; charset=\x00"]
    for body in bodies:
        for kind in kinds:
            headers = {"Content-Type": kind, "Retry-After": "9" * 400, "Location": "http://[::1"}
            error = answered(calls.models(), status, body, headers)
            assert isinstance(error, ProblemError if status > 299 else AnswerError), (body[:50], kind)


def test_fields_of_a_problem_are_those_that_are_well_formed() -> None:
    problem = {"type": "urn:ebseg:problem:invalid-request", "title": "T", "detail": "d", "request_id": "s"}
    body = json.dumps(problem | {"errors": ["text", None, {"field": "a", "message": "b"}]}).encode()
    error = answered(calls.health(), 422, body, {})
    assert isinstance(error, ProblemError)
    assert (error.fields, error.request_id) == ((FieldProblem("a", "b"),), "s")
