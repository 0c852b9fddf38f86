"""What pydantic finds wrong with one value, in our words."""

from collections.abc import Mapping
from typing import Any

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
_PATTERNS = {
    r"^#[0-9A-Fa-f]{6}$": "must be a colour such as #1f77b4",
    r"^[a-z0-9][a-z0-9._-]{0,99}$": "must be 1 to 100 small letters, digits, dots, dashes and underlines, "
    "and begin with a letter or digit",
}


def in_words(error: Mapping[str, Any]) -> str:
    """What is wrong with one value."""
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    words = _WORDS.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return words.format_map({name: str(value).replace("'", "") for name, value in context.items()})
