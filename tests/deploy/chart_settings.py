"""`python -m tests.deploy.chart_settings` writes into the chart's schema which settings there are.

By hand they would part: the chart refuses what the service would refuse, before a pod is replaced by one that
does not start.
"""

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from service.settings import Settings
from tests.deploy.files import CHART

SCHEMA = CHART / "values.schema.json"
SIZE = r"^[0-9]+ ?([KMGT]i?B?)?$"  # which the templates read as well
_BOUNDS = {Ge: ("ge", "minimum"), Gt: ("gt", "exclusiveMinimum"), Le: ("le", "maximum")}


def schema_of(field: FieldInfo) -> dict[str, Any]:
    """The schema of one setting's value in the chart."""
    annotation: Any = field.annotation
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    bounds: dict[str, Any] = {}
    pattern: dict[str, Any] = {}
    for limit in field.metadata:
        if type(limit) in _BOUNDS:
            attribute, keyword = _BOUNDS[type(limit)]
            bounds[keyword] = getattr(limit, attribute)
        elif getattr(limit, "pattern", None):
            pattern = {"pattern": limit.pattern}
    if annotation is ByteSize:
        return {"anyOf": [{"type": "integer", **bounds}, {"type": "string", "pattern": SIZE}]}
    if annotation is float:  # `helm --set` gives 2.5 as text
        return {"anyOf": [{"type": "number", **bounds}, {"type": "string", "pattern": r"^[0-9]+\.[0-9]+$"}]}
    kinds = {bool: "boolean", int: "integer"}
    if annotation in kinds:
        return {"type": kinds[annotation], **bounds}
    return {"type": "string", **pattern}


def settings_schema() -> dict[str, Any]:
    """The schema of `settings`, and of those of a kind of device."""
    properties = {name: schema_of(field) for name, field in Settings.model_fields.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def whole_schema(path: Path = SCHEMA) -> dict[str, Any]:
    """The chart's schema, with today's settings."""
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    properties = schema["properties"]
    for part in (properties, properties["cpu"]["properties"], properties["gpu"]["properties"]):
        part["settings"] = {"$ref": "#/definitions/settings"}
    schema.setdefault("definitions", {})["settings"] = settings_schema()
    return schema


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(whole_schema(), indent=2) + "\n", encoding="utf-8")
