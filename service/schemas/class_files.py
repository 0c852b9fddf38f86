"""Files of classes, as people keep them: text, CSV or JSON, by the file's ending."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.errors import UsageError
from service.schemas.lists import listed

LARGEST = 16 << 20  # bytes
_BESIDE = {"classes", "title", "ignore"}  # the latter two in a data set's classes.json, which is taken
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_class_file(path: Path) -> list[Any]:
    """The classes of a file: names, or objects with a name, which are not looked at.

    Raises:
        UsageError: it cannot be read, or holds something else; names the file, and the line if there is one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{path} has more than {LARGEST >> 20} MiB, which is no class list")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text in UTF-8") from None
    parse = {".json": _of_json, ".csv": _of_csv}.get(path.suffix.lower(), _of_lines)
    try:
        entries = parse(text)
    except ValueError as error:
        raise UsageError(f"{path} {error}") from None
    if not entries:
        raise UsageError(f"{path} holds no class")
    return entries


def _of_lines(text: str) -> list[Any]:
    names: list[Any] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        values = _quoted(line, number) if line.startswith('"') else [line]
        if len(values) != 1:
            raise ValueError(f"line {number}: {len(values)} names in quotes; give each a line of its own")
        names += values
    return names


def _quoted(line: str, number: int) -> list[Any]:
    try:
        return listed([line])
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def _of_json(text: str) -> list[Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    entries = document.get("classes") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise ValueError('must hold {"classes": [...]} or a list')
    if isinstance(document, dict) and (further := sorted(document.keys() - _BESIDE)):
        raise ValueError(f"holds {', '.join(further)[:100]}, which is no part of a class list")
    return entries


def _of_csv(text: str) -> list[Any]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        cells = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
        rows = [(number, row) for number, row in cells if any(row)]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if not rows:
        return []
    header = [cell.lower() for cell in rows[0][1]]
    if "name" in header:
        return _of_columns(header, rows[1:])
    wide = next((number for number, row in rows if len(row) > 1), None)
    if wide is not None or header[0].startswith(("name;", "name\t")):
        known = ", ".join(("name", *_COLUMNS))
        raise ValueError(
            f"line {wide or 1}: several columns need a header row of {known}, with commas between; a name "
            "with a comma stands in double quotes"
        )
    return [row[0] for _, row in rows]


def _of_columns(header: list[str], rows: list[tuple[int, list[str]]]) -> list[Any]:
    unknown = [name for name in header if name != "name" and name not in _COLUMNS]
    if unknown or len(set(header)) < len(header):
        what = f"there is no column {unknown[0][:40]!r}" if unknown else "a column comes twice"
        raise ValueError(f"line 1: {what}; known are {', '.join(('name', *_COLUMNS))}")
    entries = []
    for number, row in rows:
        if len(row) > len(header):
            raise ValueError(f"line {number}: {len(row)} cells below {len(header)} columns")
        given = {name: cell for name, cell in zip(header, row, strict=False) if cell}
        try:
            entries.append({"name": given.pop("name", ""), **{n: _COLUMNS[n](c) for n, c in given.items()}})
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return entries


def _boolean(cell: str) -> bool:
    if cell.lower() not in _BOOLEANS:
        raise ValueError(f"{cell[:40]!r} is neither true nor false")
    return _BOOLEANS[cell.lower()]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{cell[:40]!r} is no number") from None


def _synonyms(cell: str) -> list[str]:
    return [word.strip() for word in cell.split(";") if word.strip()]


_COLUMNS: dict[str, Callable[[str], Any]] = {
    "synonyms": _synonyms,
    "trained": _boolean,
    "color": str,
    "threshold": _number,
    "ignore": _boolean,
}
