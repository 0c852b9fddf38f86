"""schemathesis against a running service, from the service's own OpenAPI document."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.http.auth import is_protected
from tests.service.fakes import BASE64, PNG, FakeEngine, live

KEY = "a key of a client"
ADMIN_KEY = "a key of an administrator"
READING = "a key for reading"
SEED = 4
EXAMPLES = 15  # of each kind, for each operation
# Every answer as documented, and no 500. That broken requests are refused is left to tests that know why:
# the schema cannot say that a class is named twice, nor that a picture is none.
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SEGMENT = "POST /v1/segment"
Operation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[Any]


@pytest.fixture(scope="module")
def open_service() -> Iterator[str]:
    """A service that asks for no key."""
    with live(FakeEngine(), log_level="error") as (url, _):
        yield url


@pytest.fixture(scope="module")
def closed_service() -> Iterator[str]:
    """A service with keys."""
    reading = f"sha256:{hashlib.sha256(READING.encode()).hexdigest()}:read"
    with live(FakeEngine(), api_keys=(KEY, reading), admin_keys=(ADMIN_KEY,)) as (url, _):
        yield url


def operations(url: str) -> dict[str, Operation]:
    """All operations of the document, by method and path."""
    results = list(schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations())
    found = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(found) == len(results), "the document has an operation that cannot be read"
    return {operation.label: operation for operation in found}


def drive(
    operation: Operation,
    modes: tuple[GenerationMode, ...] = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE),
    *,
    examples: int = EXAMPLES,
    key: str | None = None,
    usable: bool = False,
) -> "Counter[int]":
    """Calls an operation with generated requests, and checks every answer; counts its statuses."""
    statuses: Counter[int] = Counter()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    @seed(SEED)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failure is reported as it was found: shrinking it takes minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
    def call(case: AnyCase) -> None:
        if usable:
            make_usable(case)
        case.headers.pop("X-API-Key", None)  # a made-up one
        answer = case.call(headers=headers)
        statuses[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS, headers=headers)

    call()
    return statuses


def make_usable(case: AnyCase) -> None:
    """Gives a generated request a picture that can be decoded, and classes; the rest stays as it is."""
    if (case.media_type or "").startswith("image/") or case.media_type == "application/octet-stream":
        case.body = PNG
        case.query = {"classes": ["sky", "tree"]}
        return
    case.query = {}  # of such a body only
    if isinstance(case.body, dict):
        body: dict[str, Any] = case.body
        body["image"] = PNG if case.media_type == "multipart/form-data" else BASE64
        body["classes"] = ["sky", "tree"]
        # the schema cannot say what is there, nor which time is enough
        for name in ("request", "vocabulary", "model", "version", "timeout_ms"):
            body.pop(name, None)


def test_every_answer_is_as_documented(open_service: str) -> None:
    found = operations(open_service)
    assert {SEGMENT, "GET /v1/models", "PUT /v1/vocabularies/{name}", "GET /metrics"} <= found.keys()
    statuses = {label: drive(operation) for label, operation in found.items()}
    for label, counted in statuses.items():
        assert counted, label
        assert max(counted) < 500, label


def test_segmentations_of_generated_requests(open_service: str) -> None:
    """With a picture that can be decoded, what else is generated gets as far as the engine."""
    statuses = drive(operations(open_service)[SEGMENT], (GenerationMode.POSITIVE,), examples=60, usable=True)
    print(statuses)
    assert statuses[200] >= 5


@pytest.mark.parametrize("key", [None, "a key that nobody knows", KEY, ADMIN_KEY, READING])
def test_answers_with_keys_are_as_documented(closed_service: str, key: str | None) -> None:
    for label, operation in operations(closed_service).items():
        statuses = drive(operation, (GenerationMode.POSITIVE,), examples=3, key=key)
        if key not in (KEY, ADMIN_KEY, READING) and is_protected(operation.path):
            assert set(statuses) == {401}, label
        elif key == READING and is_protected(operation.path) and operation.method != "get":
            assert set(statuses) == {403}, label
        else:
            assert 401 not in statuses, label
