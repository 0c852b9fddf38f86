"""The rows that come out."""

from typing import Any

COLUMNS = ("id", "width", "height", "label_map", "classes", "areas", "confidence", "error")
Row = dict[str, Any]


def failed(id: str, error: object) -> Row:
    """The row of a picture that could not be segmented."""
    return dict.fromkeys(COLUMNS) | {"id": id, "error": " ".join(str(error).split())}
