"""Lists that are written as text: one rule for forms, queries, JSON documents and the command line."""

import json
import re
from collections.abc import Iterable
from typing import Any

MOST_VALUES = 200_000  # of a list; what a text of commas alone would make of megabytes is gigabytes
MOST_TEXT = 2 << 20  # characters: 4096 names of 200, each of them a quote that is doubled
# a name in double quotes, which are doubled within; or one without a comma that is not escaped. Nothing is
# tried twice: no other thread runs, the event loop's neither, while a text is matched
_ITEM = re.compile(r'\s*+(?:"((?:[^"]++|"")*+)"\s*|((?:[^,\n\\]++|\\,|\\)*+))(,|\n|\Z)')
# where a name in other quotes would begin, and end: as in a shell, a tuple of Python's, or a word processor
_OPENED = re.compile(r"(?:\A|[,\n])[ \t]*\(?['\u2018\u201c\u201e\u00ab]")
_CLOSED = re.compile(r"['\u2019\u201c\u201d\u00bb]\)?[ \t]*(?=[,\n]|\Z)")
_TUPLE = re.compile(r"\s*\(\"")
_ENTITY = re.compile(r"&#?\w{1,31};")  # of HTML, whose semicolon is no sign between values
# what others have between values: semicolons, a sheet's tabs, commas of other scripts
_OTHERS_COMMA = re.compile(r"(?<=\S)\s*(?:\t|[;|\uff0c\u3001\u060c\uff1b\u061b])\s*(?=\S)")


def listed(texts: Iterable[str]) -> list[Any]:
    """The values of a list.

    A text holds values with commas or line ends between. A comma that belongs to a value is written `\\,`, or
    the value stands in double quotes; so does one with a semicolon, a bar, a tab or another script's comma. A
    text that begins with a bracket or a brace is JSON: a list, or an object, which is one value.

    Args:
        texts: parts of the list, such as a form's repeated fields.

    Raises:
        ValueError: a text that cannot be read, or too many values; says what is wrong, without the text.
    """
    values: list[Any] = []
    for text in texts:
        if len(values) + text.count(",") + text.count("\n") > MOST_VALUES:
            raise ValueError("the list holds too many values")
        values += _json(text) if text.lstrip().startswith(("[", "{")) else _between_commas(text)
    return values


def _json(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            'a list in brackets is JSON, as in ["sky", "tree"]; without brackets, commas are enough'
        ) from None
    return value if isinstance(value, list) else [value]


def _between_commas(text: str) -> list[str]:
    text = text.rstrip()
    if len(text) > MOST_TEXT:
        raise ValueError(f"a list is written in at most {MOST_TEXT} characters, this text has {len(text)}")
    opened = None if '"' in text else _OPENED.search(text)
    if _TUPLE.match(text) or (opened is not None and _CLOSED.search(text, opened.end())):
        raise ValueError('names stand in straight double quotes or in none, as in "red, ripe apple", tree')
    values = []
    at = 0
    while True:
        match = _ITEM.match(text, at)
        if match is None or (match[2] or "").startswith('"'):
            raise ValueError('a value in double quotes ends with one, as in "red, ripe apple", tree')
        quoted, plain, end = match.groups()
        if quoted is None and _OTHERS_COMMA.search(_ENTITY.sub("", plain)):
            raise ValueError(
                "values have commas between, as in sky, tree; one that holds a semicolon, a bar, a tab or "
                'another script\'s comma stands in double quotes, as in "red; ripe"'
            )
        values.append(plain.replace("\\,", ",").strip() if quoted is None else quoted.replace('""', '"'))
        if not end:
            return values
        at = match.end()
