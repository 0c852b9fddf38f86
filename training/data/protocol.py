"""What of a prepared benchmark is otherwise than in the released evaluation, kept beside its class list."""

import json
from collections.abc import Sequence
from pathlib import Path

from model.storage.files import replace_text
from training.errors import DatasetError

DIFFERENCES_FILE = "differences.json"


def write_differences(root: Path, differs: Sequence[str]) -> None:
    """Keeps them, sentences.

    Raises:
        OSError: the disk did not take them.
    """
    replace_text(root / DIFFERENCES_FILE, json.dumps(list(differs), indent=1) + "\n")


def read_differences(root: Path) -> tuple[str, ...]:
    """The sentences; none where all is as in the released evaluation.

    Raises:
        DatasetError: nothing tells, since the data set was not made by `ebseg prepare` of a public archive.
    """
    path = root / DIFFERENCES_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list):
            raise ValueError("it is no list")
    except FileNotFoundError:
        raise DatasetError(
            f"{path} is missing: {root} is no benchmark; ebseg prepare makes one with --protocol official"
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return tuple(str(one) for one in found)
