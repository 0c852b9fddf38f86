"""A data set's class list as it stands in `classes.json`, see `layout.py`."""

import json
from pathlib import Path
from typing import Any

from model.errors import VocabularyError
from model.vocabulary.classes import ClassName, Vocabulary
from training.data.present import CLASSES_FILE, missing
from training.errors import DatasetError

IGNORE_VALUES = (255, 65535)  # the largest values of label maps of 8 and 16 bits
_KEYS = {"classes", "ignore", "title"}
_CLASS_KEYS = {"name", "synonyms", "trained"}


def read_classes(root: Path) -> tuple[str, tuple[ClassName, ...], tuple[bool, ...], int]:
    """Title, classes, which are trained, and the ignore value of a data set.

    Raises:
        DatasetError: its class list is missing or wrong.
    """
    path = root / CLASSES_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(root) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return parsed_classes(content, path)


def parsed_classes(content: Any, path: Path) -> tuple[str, tuple[ClassName, ...], tuple[bool, ...], int]:
    """Title, classes, which are trained, and the ignore value of a class list.

    Raises:
        DatasetError: it is none; the message names the path.
    """
    if not isinstance(content, dict) or not {"classes", "ignore"} <= content.keys() <= _KEYS:
        raise DatasetError(f'{path} must be an object with "classes", "ignore" and, if you like, "title"')
    rows, ignore, title = content["classes"], content["ignore"], content.get("title", "")
    if not isinstance(ignore, int) or ignore not in IGNORE_VALUES or not isinstance(title, str):
        raise DatasetError(f'{path}: "ignore" must be 255 or 65535, and "title" a string')
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f'{path}: "classes" must be a list of objects, each with a "name"')
    for index, row in enumerate(rows):
        if not {"name"} <= row.keys() <= _CLASS_KEYS or not isinstance(row.get("trained", True), bool):
            raise DatasetError(
                f'{path}: class {index} must have a "name" and may have "synonyms", a list, and "trained",'
                f" true or false; got {json.dumps(row)}"
            )
        if not isinstance(row.get("synonyms", []), list):
            raise DatasetError(f'{path}: class {index}: "synonyms" must be a list')
    if len(rows) > ignore:
        raise DatasetError(f'{path}: {len(rows)} classes need "ignore": 65535 and labels of 16 bits')
    try:
        named = [ClassName(name=row["name"], synonyms=tuple(row.get("synonyms", ()))) for row in rows]
        classes = Vocabulary.of(named).classes
    except VocabularyError as error:
        raise DatasetError(f"{path}: {error}") from error
    return title, classes, tuple(row.get("trained", True) for row in rows), ignore
