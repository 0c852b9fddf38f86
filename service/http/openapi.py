"""What /docs shows of bodies and answers that FastAPI does not make itself."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from model.vocabulary.classes import MAX_NAME_LENGTH
from service.http.auth import install_security
from service.http.problem_examples import example
from service.http.problems import KINDS, MEDIA_TYPE
from service.schemas.image_task import TaskRequest
from service.schemas.inference_protocol import InferenceRequest
from service.schemas.inference_repository import IndexRequest
from service.schemas.json_request import JsonSegmentRequest
from service.schemas.models import CanaryRequest, PinRequest
from service.schemas.problem import Problem
from service.schemas.segment import LAST_FRAME, ONE_SOURCE, SegmentAnswer, SegmentRequest

_REF = "#/components/schemas/"
_HEADERS = "#/components/headers/"
_TEXT = {"type": "string"}

CONVENTIONS = """
Every response carries `X-Request-ID`: the request's own if it is made of up to 64 letters, digits, dots,
dashes and underscores, else a new one. The service's log has it, too.

Errors are `application/problem+json` (RFC 9457), below `/v2` the protocol's `{"error": ...}`. Of `type`, the
word after `urn:ebseg:problem:` is for programs; it stands in brackets with each error below. Statuses 429 and
503 are worth another try, after `Retry-After` seconds. A path that is not here is answered with 404, and a
method that a path does not have with 405.

Where the service was started with keys, send one as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
"""
TAGS = [
    {"name": "segmentation", "description": "An image and class names in, a mask out."},
    {"name": "vocabularies", "description": "Class lists that requests can name."},
    {"name": "models", "description": "What is loaded, and which version of it serves."},
    {"name": "inference protocol", "description": "The Open Inference Protocol, for clients that speak it."},
    {"name": "operation", "description": "Probes and metrics."},
]
HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {"description": "names this request in logs and errors", "schema": _TEXT},
    "Server-Timing": {
        "description": "ms by stage, `total` last",
        "schema": _TEXT,
        "example": "decode;dur=4.2, predict;dur=310.0, total;dur=331.9",
    },
    "X-EBSeg-Model": {
        "description": "model and version that answered",
        "schema": _TEXT,
        "example": "ebseg-tiny/1",
    },
    "X-EBSeg-Untrained": {
        "description": "there if the weights are random, so that the mask means nothing",
        "schema": {"enum": ["true"], "type": "string"},
    },
    "X-EBSeg-Warnings": {
        "description": "there if the response is doubtful: codes of its warnings, which JSON explains",
        "schema": _TEXT,
        "example": "unknown-words, unlike-its-domain",
    },
    "Retry-After": {
        "description": "seconds after which to come again",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "how to send a key", "schema": _TEXT, "example": "Bearer"},
}
# of all answers, and of those of some status or path
_ALWAYS = ("X-Request-ID", "Server-Timing")
_BY_STATUS = {"401": ("WWW-Authenticate",), "429": ("Retry-After",), "503": ("Retry-After",)}
_OF_MASKS = ("X-EBSeg-Model", "X-EBSeg-Untrained", "X-EBSeg-Warnings")
# said where a picture is sent only
_OF_PICTURES = frozenset({"bad-picture", "too-many-pixels", "out-of-memory"})


def _file(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}}


def _field(name: str, schema: dict[str, Any], more: str = "") -> dict[str, Any]:
    """A form field that stands for the document's field of this name."""
    return {**schema, "description": f"{SegmentRequest.model_fields[name].description}{more}"}


def _in_query(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A form field as a parameter of the query."""
    about = f"for a body that is the image: {field['description']}"
    shown = {"x-body-is-the-image": True}  # /docs shows it with such a body alone
    if name == "request":  # text alone: /docs would send a schema's example beside every form
        return {"description": f"{about}; a SegmentRequest, as text", "schema": _TEXT, **shown}
    return {
        **shown,
        "description": about,
        "schema": {key: value for key, value in field.items() if key != "description"},
    }


SEGMENT_ANSWERS: dict[str, Any] = {
    "description": "The mask, in the form that `Accept` asks for",
    "content": {
        "application/json": {"schema": {"$ref": f"{_REF}SegmentAnswer"}},
        "image/png": _file("the label map, whose pixels are labels; or what `outputs` names instead"),
        "image/webp": _file("the image under its mask"),
        "application/x-npy": _file("the label map for numpy.load, uint16 [H, W]"),
    },
}
_NAMES = {"type": "array", "items": _TEXT}
_COMMAS = "; repeated, with commas between, or as a JSON list"
_FORM_FIELDS: dict[str, Any] = {
    "image": {
        "type": "string",
        "format": "binary",
        "description": "a file: JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, recognised by its content",
    },
    "url": {
        **_TEXT,
        "description": "where the service fetches the image, in place of `image`; its settings list hosts",
    },
    "request": {
        "$ref": f"{_REF}SegmentRequest",
        "description": "what the fields below say, and more, as one JSON document in their place",
    },
    "classes": _field(
        "classes",
        {
            **_NAMES,
            "minItems": 1,
            "examples": [
                ["sky", "tree", "road"],
                ["sky, tree, road"],
                ['"red, ripe apple", tree'],
                ['["sky", "tree"]'],
            ],
        },
        _COMMAS,
    ),
    "vocabulary": _field("vocabulary", {**_TEXT, "examples": ["voc-20"]}),
    "templates": _field(
        "templates",
        {**_NAMES, "minItems": 1, "examples": [["plain"], ["a photo of a {}.", "a drawing of a {}."]]},
        "; repeated, or as a JSON list, because commas belong to a sentence",
    ),
    "synonym_mode": _field("synonym_mode", {"type": "string", "enum": ["best", "mean"]}),
    "background": {
        "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"const": "none", "type": "string"}],
        "description": 'pixels of a lower confidence become "other", label 0; none: every pixel gets a '
        "class; left out, the threshold of the model's card holds",
        "examples": [0.3, "none"],
    },
    "mean": {
        "type": "string",
        "enum": ["geometric", "arithmetic"],
        "description": "how trained and new classes are balanced, with the weights of that mean",
    },
    "outputs": _field(
        "outputs", {**_NAMES, "minItems": 1, "examples": [["rle", "npy"], ["rle,npy"]]}, _COMMAS
    ),
    "subject": _field("subject", {**_TEXT, "maxLength": MAX_NAME_LENGTH}),
    "palette": _field(
        "palette", {**_NAMES, "minItems": 1, "examples": [["voc"], ["#87ceeb, #2e8b57"]]}, _COMMAS
    ),
    "tiling": _field("tiling", {**_TEXT, "examples": ["1024", "1024,256"]}, ": `SIZE` or `SIZE,OVERLAP`"),
    "output_size": _field(
        "output_size", {**_TEXT, "examples": ["image", "320"]}, ': "image", or the long side in pixels'
    ),
    "model": _field("model", {**_TEXT, "maxLength": 100}),
    "version": _field("version", {"type": "integer", "minimum": 1}),
    "frame": _field("frame", {"type": "integer", "minimum": 0, "maximum": LAST_FRAME, "examples": [0]}),
    "timeout_ms": _field("timeout_ms", {"type": "integer", "minimum": 1, "examples": [30_000]}),
}
# /docs fills forms with an example of every field, and all of these together contradict one another; what it
# leaves empty is sent, too, and counts as left out
_FILLED = frozenset({"image", "classes"})


def _as_filled(name: str, field: dict[str, Any]) -> dict[str, Any]:
    """A field of the form as /docs is to show it before anybody types: empty, but for those of `_FILLED`."""
    if name in _FILLED:
        return field
    if name == "request":
        document = {"$ref": field["$ref"]}
        field = {"anyOf": [_TEXT, document], "description": field["description"]}
    shown = {key: value for key, value in field.items() if key != "examples"}
    if such := field.get("examples"):
        shown["description"] += "; such as " + " or ".join(f"`{_as_text(one)}`" for one in such)
    if field.get("type") == "array":
        shown.pop("minItems", None)
        return {**shown, "example": []}
    return {**_or_empty(shown), "example": ""}


def _or_empty(field: dict[str, Any]) -> dict[str, Any]:
    """The same field, which may be empty text, too."""
    if "enum" in field:
        return {**field, "enum": [*field["enum"], ""]}
    if field.get("type") == "string":
        return field
    about: dict[str, Any] = {key: field[key] for key in ("description", "examples") if key in field}
    kinds = field.get("anyOf") or [{key: value for key, value in field.items() if key not in about}]
    return {**about, "anyOf": [*kinds, {"const": "", "type": "string"}]}


def _as_text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


_ONE_SOURCE = [*ONE_SOURCE, {"required": ["request"]}]
SEGMENT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "oneOf": [{"required": ["image"]}, {"required": ["url"]}],
                "anyOf": _ONE_SOURCE,
                "properties": {name: _as_filled(name, field) for name, field in _FORM_FIELDS.items()},
            },
        },
        "application/json": {"schema": {"$ref": f"{_REF}JsonSegmentRequest"}},
        **dict.fromkeys(
            ("image/jpeg", "image/png", "image/webp", "image/*", "application/octet-stream"),
            _file("the image itself, recognised by its content; the rest of the request is the query"),
        ),
    },
}
# a form's fields, where the body is the picture
SEGMENT_QUERY: list[dict[str, Any]] = [
    {"name": name, "in": "query", "required": False, **_in_query(name, schema)}
    for name, schema in _FORM_FIELDS.items()
    if name not in ("image", "url")
]


SEVERAL_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "allOf": [
                    {"anyOf": [{"required": ["image"]}, {"required": ["url"]}]},
                    {"anyOf": _ONE_SOURCE},
                ],
                "properties": {
                    **{name: _as_filled(name, field) for name, field in _FORM_FIELDS.items()},
                    "image": {"type": "array", "minItems": 1, "items": _FORM_FIELDS["image"]},
                    "url": {"type": "array", "items": _FORM_FIELDS["url"], "example": []},
                },
            },
        },
    },
}
SEVERAL_ANSWERS: dict[str, Any] = {
    "description": "A response for each image, in their order",
    "content": {
        "application/json": {
            "schema": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["status"],
                    "oneOf": [{"required": ["answer"]}, {"required": ["problem"]}],
                    "properties": {
                        "status": {
                            "type": "integer",
                            "description": "what /v1/segment would answer with",
                            "examples": [200],
                        },
                        "answer": {"$ref": f"{_REF}SegmentAnswer"},
                        "problem": {"$ref": f"{_REF}Problem"},
                    },
                },
            }
        },
        "multipart/mixed": _file("a part for each image, with its status in X-Status"),
    },
}


def json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads a JSON document itself.

    FastAPI would read one that is a parameter before anything asks for the key.

    Args:
        schema: of the document, or a reference to one that `install` knows.
    """
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def named(schema: str) -> dict[str, Any]:
    """A reference to a schema among the components."""
    return {"$ref": _REF + schema}


def problems(
    *statuses: int, pictures: bool = False, only: str | None = None
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entry for error answers of these statuses.

    Args:
        statuses: those that a route can answer with.
        pictures: whether it takes pictures, so that problems with these are described, too.
        only: the one kind of problem that it answers with, by its slug, if there is but one.
    """
    titles: dict[int, dict[str, str]] = {}
    for kind in KINDS.values():
        if kind.slug == only or (only is None and (pictures or kind.slug not in _OF_PICTURES)):
            titles.setdefault(kind.status, {}).setdefault(kind.slug, kind.title)
    return {
        status: {
            "description": "; ".join(f"{title} (`{slug}`)" for slug, title in titles[status].items()),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": f"{_REF}Problem"},
                    "examples": {
                        slug: example(slug, status, title) for slug, title in titles[status].items()
                    },
                }
            },
        }
        for status in statuses
    }


def install(app: FastAPI, *, keys_required: bool, served: Callable[[], tuple[str, int] | None]) -> None:
    """Makes the app's schema hold the models that its routes refer to by name, headers, and the keys.

    Args:
        app: whose schema it is.
        keys_required: whether requests need a key.
        served: the default model and its version, which examples name; None while it loads.
    """

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=f"{app.description}\n{CONVENTIONS}",
                routes=app.routes,
                tags=TAGS,
                servers=[{"url": ".", "description": "where this document is"}],
                license_info={"name": "MIT", "identifier": "MIT"},
            )
            _, definitions = models_json_schema(
                [
                    (SegmentRequest, "validation"),
                    (JsonSegmentRequest, "validation"),
                    (TaskRequest, "validation"),
                    (InferenceRequest, "validation"),
                    (IndexRequest, "validation"),
                    (PinRequest, "validation"),
                    (CanaryRequest, "validation"),
                    (SegmentAnswer, "serialization"),
                    (Problem, "serialization"),
                ],
                ref_template=_REF + "{model}",
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            install_security(made, required=keys_required)
            _install_headers(made)
            app.openapi_schema = made
        if now := served():
            _name_served(app.openapi_schema, *now)
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]


def _name_served(made: dict[str, Any], model: str, version: int) -> None:
    """Makes the examples of paths, in place, those of the model that serves: /docs fills its forms so."""
    for path, operations in made["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    (written,) = parameter["schema"]["examples"]
                    named_model = parameter["name"] == "model" or path.startswith("/v1/models")
                    is_version = parameter["name"] == "version"
                    parameter["example"] = str(version) if is_version else model if named_model else written


def _install_headers(made: dict[str, Any]) -> None:
    """Writes into a document, in place, which headers answers have."""
    made["components"]["headers"] = HEADERS
    for path, operations in made["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                masks = status == "200" and path.endswith(("/v1/segment", "/image-segmentation", "/infer"))
                names = (*_ALWAYS, *_BY_STATUS.get(status, ()), *(_OF_MASKS if masks else ()))
                references = {name: {"$ref": f"{_HEADERS}{name}"} for name in names}
                answer["headers"] = {**answer.get("headers", {}), **references}
