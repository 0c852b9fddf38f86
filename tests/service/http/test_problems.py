"""The table that turns errors into answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from model.errors import CheckpointError, ModelError, PictureError, VocabularyError
from service import errors
from service.errors import (
    FieldProblem,
    InvalidRequestError,
    QueueFullError,
    RetryableError,
    ServiceError,
)
from service.http.inference_errors import error_response
from service.http.problems import KINDS, kind_of, problem, problem_response


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedRequestError("x"), 400),
        (errors.BadPictureError("x"), 400),
        (PictureError("x"), 400),
        (errors.NotFoundError("x"), 404),
        (HTTPException(404), 404),
        (HTTPException(405), 405),
        (errors.NotAcceptableError("x"), 406),
        (errors.BodyTooSlowError("x"), 408),
        (errors.TooManyBytesError("x"), 413),
        (errors.TooManyPixelsError("x"), 413),
        (errors.UnsupportedMediaError("x"), 415),
        (InvalidRequestError([FieldProblem("a", "x")]), 422),
        (VocabularyError("x", 3), 422),
        (RequestValidationError([{"loc": ("query", "a"), "msg": "x", "type": "missing"}]), 422),
        (QueueFullError(7), 429),
        (errors.ClientGoneError("x"), 499),
        (errors.NotReadyError("x"), 503),
        (errors.UnhealthyError("x"), 503),
        (errors.DeadlineExceededError("x"), 504),
        (CheckpointError("x"), 500),
        (ModelError("x"), 500),
        (ValueError("x"), 500),
    ],
)
def test_status_of_every_error(error: Exception, status: int) -> None:
    answer = problem_response(error, "id-1")
    document = json.loads(bytes(answer.body))
    assert answer.status_code == document["status"] == status
    assert answer.media_type == "application/problem+json"
    assert document["request_id"] == "id-1"
    assert document["type"] == f"urn:ebseg:problem:{kind_of(error).slug}"
    assert document["detail"]


def test_every_service_error_has_its_own_row() -> None:
    bases: set[type[ServiceError]] = {ServiceError, RetryableError}
    assert {error for base in bases for error in base.__subclasses__()} - bases <= set(KINDS)
    assert all(kind.status >= 400 and kind.slug == kind.slug.lower() for kind in KINDS.values())


def test_inner_errors_say_nothing() -> None:
    for error in (RuntimeError("secret"), CheckpointError("secret"), ModelError("secret")):
        assert "secret" not in json.dumps(problem(error, "id"))


def test_fields_are_named() -> None:
    assert problem(VocabularyError("empty", 3), "id")["errors"] == [
        {"field": "classes.3", "message": "empty"}
    ]
    assert problem(VocabularyError("none"), "id")["errors"] == [{"field": "classes", "message": "none"}]
    many = InvalidRequestError([FieldProblem(f"f{i}", "wrong") for i in range(60)])
    assert many.detail == "f0: wrong, and 59 more: see errors"
    assert InvalidRequestError([FieldProblem("f", "wrong")]).detail == "f: wrong"
    assert len(problem(many, "id")["errors"]) == 50


def test_headers() -> None:
    assert problem_response(QueueFullError(7), "id").headers["retry-after"] == "7"
    assert problem_response(HTTPException(405, headers={"Allow": "GET"}), "id").headers["allow"] == "GET"


@pytest.mark.parametrize("respond", [problem_response, error_response])
def test_every_503_and_429_says_when_to_come_back(respond: Callable[[Exception, str], Response]) -> None:
    errors = [HTTPException(503)]
    for each in (each for each, kind in KINDS.items() if kind.status in (429, 503)):
        error: Any = each.__new__(each)
        error.detail, error.retry_after = "why", 3
        errors.append(error)
    assert len(errors) > 10
    for error in errors:
        assert int(respond(error, "id").headers["retry-after"]) >= 1, error


def test_a_status_without_a_row() -> None:
    kind = kind_of(HTTPException(418, "no coffee"))
    assert (kind.status, kind.slug) == (418, "i'm-a-teapot")
    assert problem(HTTPException(418, "no coffee"), "id")["detail"] == "no coffee"
