"""What /docs shows of bodies and answers that FastAPI does not make itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.auth import install_security
from service.errors import KINDS, MEDIA_TYPE
from service.protocol_v2.schemas import InferenceRequest
from service.schemas import JsonSegmentRequest, Problem, SegmentAnswer, SegmentRequest

_REF = "#/components/schemas/"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXT = {"type": "string"}
_LIST = {"type": "array", "items": _TEXT}

SEGMENT_ANSWERS: dict[str, Any] = {
    "description": "The mask, in the form that `Accept` asks for",
    "content": {
        "application/json": {"schema": {"$ref": f"{_REF}SegmentAnswer"}},
        "image/png": _BINARY,
        "image/webp": _BINARY,
        "application/x-npy": _BINARY,
    },
}
_FORM_FIELDS: dict[str, Any] = {
    "image": {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, TIFF, BMP or GIF"},
    "request": {"$ref": f"{_REF}SegmentRequest"},
    "classes": _LIST | {"description": "repeated, or names with commas between; without `request`"},
    "vocabulary": _TEXT,
    "templates": _LIST,
    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "mean": {"enum": ["geometric", "arithmetic"]},
    "outputs": _LIST,
    "output_size": _TEXT | {"description": '"image" or the long side in pixels'},
    "model": _TEXT,
    "version": {"type": "integer"},
    "timeout_ms": {"type": "integer"},
}
SEGMENT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "required": ["image"], "properties": _FORM_FIELDS},
            "encoding": {"request": {"contentType": "application/json"}},
        },
        "application/json": {"schema": {"$ref": f"{_REF}JsonSegmentRequest"}},
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entry for error answers of these statuses."""
    titles: dict[int, list[str]] = {}
    for kind in KINDS.values():
        titles.setdefault(kind.status, []).append(kind.title)
    return {
        status: {
            "description": "; ".join(dict.fromkeys(titles[status])),
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}Problem"}}},
        }
        for status in statuses
    }


def install(app: FastAPI, *, keys_required: bool) -> None:
    """Makes the app's schema hold the models that its routes refer to by name, and the keys."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, definitions = models_json_schema(
                [
                    (SegmentRequest, "validation"),
                    (JsonSegmentRequest, "validation"),
                    (InferenceRequest, "validation"),
                    (SegmentAnswer, "serialization"),
                    (Problem, "serialization"),
                ],
                ref_template=_REF + "{model}",
            )
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            install_security(made, required=keys_required)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]
