"""What each method of the clients sends and makes of the answer."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from ebseg_client import parsing, results
from ebseg_client.errors import InputError
from ebseg_client.exchange import Call, json_of
from ebseg_client.parsing import read
from ebseg_client.requests import (
    Classes,
    PictureUrl,
    SegmentOptions,
    Sent,
    class_documents,
    request_document,
)

T = TypeVar("T")
MOST_TIMEOUT_MS = 120_000  # the longest that the service takes by default, see its max_timeout_ms


def segment(picture: Sent, classes: Classes | None, options: SegmentOptions) -> Call[results.Segmentation]:
    """`POST /v1/segment`."""
    return Call(
        method="POST",
        path="/v1/segment",
        body=form_of([picture], classes, options),
        parse=_parser(parsing.segmentation),
    )


def form_of(
    pictures: Sequence[Sent], classes: Classes | None, options: SegmentOptions
) -> Callable[[float], dict[str, Any]]:
    """A form of pictures by the seconds that are left, which go along: the service does not work in vain.

    Raises:
        InputError: classes or options cannot be used.
    """
    document = request_document(classes, options)
    parts = [
        ("url", (None, one.url)) if isinstance(one, PictureUrl) else ("image", ("picture", one))
        for one in pictures
    ]

    def body(left: float) -> dict[str, Any]:
        timed = document | {"timeout_ms": max(1, min(MOST_TIMEOUT_MS, int(1000 * left)))}
        return {"files": [("request", (None, json.dumps(timed))), *parts]}

    return body


def vocabularies() -> Call[list[results.VocabularySummary]]:
    """`GET /v1/vocabularies`."""
    return Call(method="GET", path="/v1/vocabularies", parse=_parser(parsing.vocabulary_summaries))


def vocabulary(name: str) -> Call[results.Vocabulary]:
    """`GET /v1/vocabularies/{name}`."""
    return Call(
        method="GET", path=_path("vocabularies", name, "vocabulary"), parse=_parser(parsing.vocabulary)
    )


def put_vocabulary(name: str, classes: Classes, *, shared: bool = False) -> Call[results.Vocabulary]:
    """`PUT /v1/vocabularies/{name}`."""
    document: dict[str, Any] = {"classes": class_documents(classes)}
    if shared:
        document["shared"] = True
    return Call(
        method="PUT",
        path=_path("vocabularies", name, "vocabulary"),
        body=lambda left: {"json": document},
        parse=_parser(parsing.vocabulary),
    )


def delete_vocabulary(name: str) -> Call[None]:
    """`DELETE /v1/vocabularies/{name}`; not sent again by itself, when a second one would find nothing."""
    return Call(
        method="DELETE",
        path=_path("vocabularies", name, "vocabulary"),
        parse=lambda response: None,
        idempotent=False,
    )


def models() -> Call[results.ModelList]:
    """`GET /v1/models`."""
    return Call(method="GET", path="/v1/models", parse=_parser(parsing.model_list))


def model(name: str) -> Call[results.ModelDetails]:
    """`GET /v1/models/{name}`."""
    return Call(method="GET", path=_path("models", name, "model"), parse=_parser(parsing.model_details))


def pin(name: str, version: int) -> Call[results.ModelChange]:
    """`POST /v1/models/{name}:pin`."""
    return Call(
        method="POST",
        path=f"{_path('models', name, 'model')}:pin",
        body=lambda left: {"json": {"version": version}},
        parse=_parser(parsing.model_change),
    )


def canary(name: str, version: int, percent: int) -> Call[results.ModelChange]:
    """`POST /v1/models/{name}:canary`."""
    return Call(
        method="POST",
        path=f"{_path('models', name, 'model')}:canary",
        body=lambda left: {"json": {"version": version, "percent": percent}},
        parse=_parser(parsing.model_change),
    )


def change(name: str, verb: str) -> Call[results.ModelChange]:
    """`POST /v1/models/{name}:unpin`, `:rollback` or `:reload`; two roll-backs are not as good as one."""
    return Call(
        method="POST",
        path=f"{_path('models', name, 'model')}:{verb}",
        parse=_parser(parsing.model_change),
        idempotent=verb != "rollback",
    )


def health() -> Call[results.Health]:
    """`GET /readyz`, whose 503 is an answer as well."""

    def parse(response: httpx.Response) -> results.Health:
        return read(parsing.ready if response.is_success else parsing.not_ready, json_of(response))

    return Call(method="GET", path="/readyz", parse=parse, expected=frozenset({503}), retried=False)


def _parser(parse: Callable[[Any], T]) -> Callable[[httpx.Response], T]:
    return lambda response: read(parse, json_of(response))


def _path(kind: str, name: str, what: str) -> str:
    if not name or not isinstance(name, str):
        raise InputError(f"the name of a {what} is missing, got {name!r}")
    return f"/v1/{kind}/{quote(name, safe='')}"
