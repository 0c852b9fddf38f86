"""What pydantic finds wrong with a document, in our words.

The values, which may be long or private, stay out; what was meant by a misspelt name is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

from model.errors import LONGEST, nearest
from service.errors import FieldProblem

UNKNOWN = "unknown field"
MOST_ASKED = 50  # unknown names that are compared with ours; a document may have a hundred thousand
# By pydantic's type of an error, with the values of its context. Every list that has a least length may have
# one entry, and so has text.
_WORDS = {
    "missing": "is missing",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be text",
    "string_unicode": "must be text in UTF-8",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "has too many digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be finite",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "none_required": "must be null",
}
# What other services call our fields; the first that the document has is meant.
_OTHER_WORDS = {
    **dict.fromkeys(("labels", "names", "prompt", "prompts", "text", "queries", "categories"), ("classes",)),
    **dict.fromkeys(("file", "files", "picture", "photo", "img", "input", "data"), ("image",)),
    **dict.fromkeys(("label", "title"), ("name",)),
}
PATTERNS = {
    r"^#[0-9A-Fa-f]{6}$": "must be a colour such as #1f77b4",
    r"^[a-z0-9][a-z0-9._-]{0,99}$": "must be 1 to 100 small letters, digits, dots, dashes and underlines, "
    "and begin with a letter or digit",
}


def field_problems(
    errors: Sequence[Mapping[str, Any]], schema: type[BaseModel] | None = None
) -> list[FieldProblem]:
    """The fields that are wrong, and why; unknown ones first, since a misspelt name explains a missing field.

    Args:
        errors: as pydantic lists them.
        schema: of the document, whose fields an unknown one may have meant; None asks nothing.
    """
    known = () if schema is None else field_names(schema)
    problems = []
    for number, error in enumerate(sorted(errors, key=lambda one: one["type"] != "extra_forbidden")):
        path = ".".join(shown_name(str(part)) for part in error["loc"]) or "request"
        if error["type"] == "extra_forbidden":
            message = unknown_field(str(error["loc"][-1]), known) if number < MOST_ASKED else UNKNOWN
        else:
            message = _message(error)
        problems.append(FieldProblem(path, message))
    return problems


def shown_name(name: str) -> str:
    """A field's name as an error repeats it: callers may have sent megabytes."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}..."


def unknown_field(name: str, known: Iterable[str]) -> str:
    """What is said of a field that there is not, with the one that was meant if it is nearly that."""
    near = nearest(name, known) or next(
        (meant for meant in _OTHER_WORDS.get(name.lower(), ()) if meant in known), None
    )
    return f"{UNKNOWN}; did you mean {near}?" if near else UNKNOWN


@cache
def field_names(schema: type[BaseModel]) -> tuple[str, ...]:
    """Names of the fields of a document and of all that it holds."""
    described = schema.model_json_schema()
    objects = [described, *described.get("$defs", {}).values()]
    return tuple(dict.fromkeys(name for one in objects for name in one.get("properties", {})))


def _message(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch" and context.get("pattern") in PATTERNS:
        return PATTERNS[context["pattern"]]
    words = _WORDS.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return words.format_map({name: str(value).replace("'", "") for name, value in context.items()})
