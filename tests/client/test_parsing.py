"""Answers that no EBSeg service gives: each is one error of the client, never a fault inside it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ebseg_client import AnswerError, EBSegClient
from ebseg_client.parsing import model_details, read, segmentation, vocabulary
from tests.service.commands.test_remote_commands import DETAILS
from tests.service.scripted_server import ANSWER, Answer, scripted

LIST: dict[str, Any] = {
    "name": "harbour",
    "size": 1,
    "builtin": False,
    "shared": False,
    "classes": [{"name": "boat", "synonyms": ["ship"], "trained": None, "color": "#00ff00"}],
}
KNOWN: dict[Callable[[Any], object], dict[str, Any]] = {
    segmentation: ANSWER,
    model_details: DETAILS,
    vocabulary: LIST,
}


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with another value at a place."""
    made = copy.deepcopy(document)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("parse", "path", "value"),
    [
        (segmentation, ("size", "width"), "2"),
        (segmentation, ("size", "width"), 2.0),
        (segmentation, ("size", "height"), 0),
        (segmentation, ("size",), None),
        (segmentation, ("classes", 0, "bbox"), [1, 2, 3]),
        (segmentation, ("classes",), None),
        (segmentation, ("classes", 0), "sky"),
        (segmentation, ("classes", 0, "name"), 7),
        (segmentation, ("classes", 0, "label"), 2),
        (segmentation, ("classes", 0, "label"), True),
        (segmentation, ("classes", 0, "color"), "red"),
        (segmentation, ("classes", 0, "trained"), 1),
        (segmentation, ("classes", 0, "area"), 1.5),
        (segmentation, ("classes", 0, "fraction"), "all"),
        (segmentation, ("classes", 0, "mean_confidence"), "high"),
        (segmentation, ("classes", 0, "rle"), {"size": [1, 2]}),
        (segmentation, ("classes", 0, "rle", "counts"), [0, 2]),
        (segmentation, ("classes", 0, "polygons"), [{"exterior": [[1, 2, 3]], "holes": []}]),
        (segmentation, ("classes", 0, "polygons"), [{"exterior": 3}]),
        (segmentation, ("model",), {"name": "m"}),
        (segmentation, ("model", "version"), "1"),
        (segmentation, ("request_id",), None),
        (segmentation, ("other",), {"area": 3}),
        (segmentation, ("npy",), "no base64!"),
        (segmentation, ("timings_ms",), 3),
        (model_details, ("default",), None),
        (model_details, ("pinned",), "4"),
        (model_details, ("license",), 3),
        (model_details, ("card",), "a card"),
        (model_details, ("versions",), {}),
        (model_details, ("versions", 0, "loaded_at"), "yesterday"),
        (model_details, ("versions", 0, "in_flight"), None),
        (model_details, ("quarantined", 0, "since"), 3),
        (vocabulary, ("size",), "1"),
        (vocabulary, ("classes", 0, "synonyms"), "ship"),
        (segmentation, ("warnings",), "careful"),
        (vocabulary, ("classes", 0, "trained"), "yes"),
        (vocabulary, ("classes", 0), []),
    ],
)
def test_wrong_values_are_found(
    parse: Callable[[Any], object], path: tuple[str | int, ...], value: Any
) -> None:
    read(parse, KNOWN[parse])  # which is right
    document = changed(KNOWN[parse], path, value)
    with pytest.raises(AnswerError, match="a response that no EBSeg service gives: "):
        read(parse, document)


@pytest.mark.parametrize("parse", KNOWN)
@pytest.mark.parametrize("document", [None, 3, "text", [], {}, [{}]])
def test_other_documents_are_refused(parse: Callable[[Any], object], document: Any) -> None:
    with pytest.raises(AnswerError):
        read(parse, document)


@pytest.mark.parametrize("parse", KNOWN)
def test_every_field_that_is_missing_is_found(parse: Callable[[Any], object]) -> None:
    optional = {"rle", "license", "card"}
    for name in KNOWN[parse].keys() - optional:
        with pytest.raises(AnswerError, match=f"KeyError '{name}'"):
            read(parse, {key: value for key, value in KNOWN[parse].items() if key != name})


def test_new_fields_are_no_fault() -> None:
    answer = read(segmentation, ANSWER | {"mood": "good", "warnings": None, "caches": None})
    assert answer.warnings == ()
    assert answer.labels.tolist() == [[1, 1]]


def test_client_tells_what_is_wrong() -> None:
    wrong = changed(ANSWER, ("classes", 0, "color"), "x" * 500)
    with scripted(Answer(body=wrong)) as server, EBSegClient(server.url) as client:
        with pytest.raises(AnswerError) as reported:
            client.segment(b"picture", ["sky"])
        assert len(server.heard) == 1  # asking again would not help
    assert len(str(reported.value)) < 250
