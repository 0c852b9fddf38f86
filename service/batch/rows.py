"""The rows that come out."""

import os
from collections.abc import Mapping
from typing import Any

from model.urls import without_secrets

COLUMNS = ("id", "width", "height", "label_map", "classes", "areas", "confidence", "error")
Row = dict[str, Any]
SPARK_SCHEMA = (
    "id string, width int, height int, label_map binary, classes array<string>, areas array<bigint>, "
    "confidence array<double>, error string"
)
"""Of `DataFrame.mapInPandas`."""


def failed(id: str, error: object) -> Row:
    """The row of a picture that could not be segmented; its error is one line without secrets of URLs."""
    text = without_secrets(" ".join(printable(str(error)).split()))
    return dict.fromkeys(COLUMNS) | {"id": id, "error": text}


def row_id(row: Mapping[str, Any], index: int) -> str:
    """What a row that goes in is called: its `id`, its `path`, or its index."""
    return printable(str(row.get("id", row.get("path", index))))


def printable(text: str) -> str:
    """A text that every format of the output can hold: bytes of file names that are no UTF-8 as `\\xff`."""
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which is no byte of a name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
