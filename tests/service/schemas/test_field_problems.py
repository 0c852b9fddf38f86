"""What is wrong with a document is reported in our words."""

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from starlette.datastructures import ImmutableMultiDict

from model.errors import nearest
from service.errors import FieldProblem
from service.http.form_fields import KNOWN, problems_of_names
from service.schemas.field_problems import MOST_ASKED, field_names, field_problems
from service.schemas.inference_protocol import InferenceRequest
from service.schemas.json_request import JsonSegmentRequest
from service.schemas.vocabularies import VocabularyRequest

DOCUMENTS: dict[type[BaseModel], dict[str, Any]] = {
    JsonSegmentRequest: {
        "image": "aGk=",
        "classes": [
            {"name": "sky", "synonyms": ["air"], "trained": True, "color": "#112233", "threshold": 0.5}
        ],
        "templates": ["{}"],
        "synonym_mode": "best",
        "outputs": ["rle"],
        "output_size": {"long_side": 100},
        "background": {"threshold": 0.1},
        "balance": {
            "mean": "geometric",
            "trained": {"supervised": 0.5, "mask_attention": 0.25, "frozen": 0.25},
            "new": {"supervised": 0.5, "mask_attention": 0.25, "frozen": 0.25},
        },
        "model": "m",
        "version": 1,
        "timeout_ms": 10,
    },
    VocabularyRequest: {"classes": [{"name": "sky", "color": "#112233"}]},
    InferenceRequest: {
        "id": "a",
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": {}}],
        "outputs": [{"name": "labels", "parameters": {}}],
        "parameters": {},
    },
}
WRONG: tuple[Any, ...] = (
    None,
    True,
    "",
    "x" * 5000,
    -1,
    3.5,
    1e400,
    1 << 80,
    [],
    [None],
    {},
    {"colour": 1},
    ["x"] * 5000,
)
PYDANTIC = re.compile(r"should|Input|valid\b|permitted|required|\^|pydantic|unable")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in a document."""
    if path:
        yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, one in entries:
        yield from places(one, (*path, key))


@pytest.mark.parametrize("schema", DOCUMENTS, ids=lambda schema: schema.__name__)
def test_no_message_is_pydantics(schema: type[BaseModel]) -> None:
    schema.model_validate(DOCUMENTS[schema])
    refused = 0
    for path in places(DOCUMENTS[schema]):
        for wrong in WRONG:
            document = copy.deepcopy(DOCUMENTS[schema])
            place: Any = document
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = wrong
            try:
                schema.model_validate(document)
            except ValidationError as error:
                refused += 1
                for problem in field_problems(error.errors(), schema):
                    assert not PYDANTIC.search(problem.message), (path, wrong, problem)
                    assert len(problem.message) < 300  # nothing of the value, or its begin
    assert refused > 40


def test_fields_that_are_missing_unknown_or_meant_otherwise() -> None:
    with pytest.raises(ValidationError) as caught:
        JsonSegmentRequest.model_validate({"clases": ["sky"], "balance": {"men": 1}, "zzz": 0})
    assert field_problems(caught.value.errors(), JsonSegmentRequest) == [
        FieldProblem("balance.men", "unknown field; did you mean mean?"),
        FieldProblem("clases", "unknown field; did you mean classes?"),
        FieldProblem("zzz", "unknown field"),
        FieldProblem("balance.mean", "is missing"),
    ]


def test_of_a_hundred_thousand_unknown_names_a_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """They held a thread for 12 s, and a name of 10 MB came back in the answer."""
    compared: list[str] = []

    def counted(given: str, known: Iterable[str]) -> str | None:
        compared.append(given)
        return nearest(given, known)

    monkeypatch.setattr("service.schemas.field_problems.nearest", counted)
    names = [f"clases{number}" for number in range(2000)] + ["a" * 10_000]
    with pytest.raises(ValidationError) as caught:
        JsonSegmentRequest.model_validate(dict.fromkeys(names, 0))
    problems = field_problems(caught.value.errors(), JsonSegmentRequest)
    form = problems_of_names(ImmutableMultiDict([(name, "0") for name in names]), KNOWN)
    assert len(compared) == 2 * MOST_ASKED == 100
    for found in (problems, form):
        assert [one.field for one in found[:2001]] == [*names[:2000], "a" * 100 + "..."]
        assert found[49].message == "unknown field; did you mean classes?"
        assert {one.message for one in found[50:2001]} == {"unknown field"}


def test_names_are_those_of_the_whole_document() -> None:
    assert {"classes", "color", "supervised", "long_side"} <= set(field_names(JsonSegmentRequest))


def test_pydantic_errors_in_our_words() -> None:
    reported = field_problems(
        [
            {"loc": ("classes", 3, "name"), "msg": "Value error, must not be empty", "type": "value_error"},
            {"loc": ("x",), "msg": "Extra inputs are not permitted", "type": "extra_forbidden"},
            {"loc": ("outputs",), "msg": "List should have at least 1 item", "type": "too_short"},
            {"loc": (), "msg": "no", "type": "value_error"},
        ]
    )
    assert reported == [
        FieldProblem("x", "unknown field"),
        FieldProblem("classes.3.name", "must not be empty"),
        FieldProblem("outputs", "must not be empty"),
        FieldProblem("request", "no"),
    ]
