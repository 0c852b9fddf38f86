"""Whether a data set is there at all; imports nothing, so that saying no is quick."""

from pathlib import Path

from training.errors import DatasetError

CLASSES_FILE = "classes.json"


def missing(root: Path) -> DatasetError:
    """The error of a folder that is no data set."""
    return DatasetError(
        f"{root / CLASSES_FILE} is missing: {root} is no data set, or `ebseg prepare` has not ended there"
    )


def refuse_missing_data(root: Path) -> None:
    """Raises DatasetError if a folder is no data set."""
    if not (root / CLASSES_FILE).exists():
        raise missing(root)
