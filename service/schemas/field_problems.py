"""What pydantic finds wrong with a document, in our words.

The values, which may be long or private, stay out; what was meant by a misspelt name is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from model.errors import LONGEST, nearest
from service.errors import FieldProblem
from service.setting_values.words import in_words

UNKNOWN = "unknown field"
MOST_ASKED = 50  # unknown names that are compared with ours; a document may have a hundred thousand
# What other services call our fields; the first that the document has is meant.
_OTHER_WORDS = {
    **dict.fromkeys(("labels", "names", "prompt", "prompts", "text", "queries", "categories"), ("classes",)),
    **dict.fromkeys(("file", "files", "picture", "photo", "img", "input", "data"), ("image",)),
    **dict.fromkeys(("label", "title"), ("name",)),
    **dict.fromkeys(("threshold", "min_confidence"), ("background.threshold", "background")),
    "min_area": ("regions.min_area",),
    "long_side": ("output_size.long_side",),
}
# How a field is written that was sent in a usual wrong form, by its path and pydantic's type of the error
_EXAMPLES = {
    ("background", "model_type"): ', such as {"threshold": 0.3}',
    ("background", "model_attributes_type"): ', such as {"threshold": 0.3}',
    ("background.threshold", "float_parsing"): ", such as 0.3, in a form background=0.3",
    ("outputs", "list_type"): ', such as ["rle", "png"]',
    ("classes.N.synonyms", "list_type"): ', such as ["bush"]',
    ("image", "string_type"): ": the file's bytes in base64",
}


def field_problems(
    errors: Sequence[Mapping[str, Any]], schema: type[BaseModel] | None = None
) -> list[FieldProblem]:
    """The fields that are wrong, and why; unknown ones first, since a misspelt name explains a missing field.

    Args:
        errors: as pydantic lists them.
        schema: of the document, whose fields an unknown one may have meant; None asks nothing.
    """
    problems = []
    for number, error in enumerate(sorted(errors, key=lambda one: one["type"] != "extra_forbidden")):
        place = error["loc"]
        path = ".".join(shown_name(str(part)) for part in place)
        if error["type"] == "extra_forbidden":
            known = () if schema is None else field_names(schema) if len(place) > 1 else field_paths(schema)
            message = unknown_field(str(place[-1]), known) if number < MOST_ASKED else UNKNOWN
            problems.append(FieldProblem(path, message))
        elif place:
            example = _EXAMPLES.get((_kind(place), error["type"]), "")
            problems.append(FieldProblem(path, in_words(error) + example))
        else:
            what = in_words(error).replace("must be an object", "the document must be a JSON object")
            problems.append(FieldProblem("request", what, whole=True))
    return problems


def shown_name(name: str) -> str:
    """A field's name as an error repeats it: callers may have sent megabytes."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def unknown_field(name: str, known: Iterable[str]) -> str:
    """What is said of a field that there is not, with the one that was meant if it is nearly that."""
    near = nearest(name, known)
    if near in (None, name):  # the name itself is a field elsewhere in the document
        near = next((meant for meant in _OTHER_WORDS.get(name.lower(), ()) if meant in known), None)
    return f"{UNKNOWN}; did you mean {near}?" if near else UNKNOWN


def json_trouble(error: Mapping[str, Any]) -> str:
    """Why a document is no JSON, of pydantic's error of type json_invalid."""
    return str(error["msg"]).removeprefix("Invalid JSON: ")


@cache
def field_names(schema: type[BaseModel]) -> tuple[str, ...]:
    """Names of the fields of a document and of all that it holds."""
    described = schema.model_json_schema()
    objects = [described, *described.get("$defs", {}).values()]
    return tuple(dict.fromkeys(name for one in objects for name in one.get("properties", {})))


@cache
def field_paths(schema: type[BaseModel]) -> tuple[str, ...]:
    """Names of a document's own fields, and `field.name` of those that its fields hold, lists aside."""
    described = schema.model_json_schema()
    fields = described.get("properties", {})
    paths = list(fields)
    for name, about in fields.items():
        for one in (about, *about.get("anyOf", ())):
            held = described.get("$defs", {}).get(one.get("$ref", "").rpartition("/")[2], {})
            paths += [f"{name}.{inner}" for inner in held.get("properties", {})]
    return tuple(paths)


def _kind(place: Sequence[Any]) -> str:
    """The path of a field in any entry of a list."""
    return ".".join("N" if isinstance(part, int) else str(part) for part in place)
