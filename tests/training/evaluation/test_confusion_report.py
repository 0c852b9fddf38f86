"""The confusion as a table and as a picture."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.evaluation.confusion_report import FULL, as_csv, as_picture, write_confusion
from training.evaluation.metrics import Confusion
from training.evaluation.pictures import PAPER

NAMES = ("sky", 'sea, "deep"', "sand")
COUNTS = np.array([[6, 2, 0], [0, 0, 0], [0, 0, 2]])


def test_the_table_comes_back(tmp_path: Path) -> None:
    table, picture = write_confusion(tmp_path / "made", Confusion.of(COUNTS), NAMES)
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["truth", *NAMES]
    assert [row[0] for row in rows[1:]] == list(NAMES)
    assert [[int(x) for x in row[1:]] for row in rows[1:]] == COUNTS.tolist()
    with Image.open(picture) as image:
        assert image.format == "PNG"


def colours(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


def test_cells_are_as_dark_as_their_share() -> None:
    shown = as_picture(Confusion.of(COUNTS), NAMES)
    blended = [share * FULL + (1 - share) * np.array(PAPER) for share in (0.75, 0.25, 1.0)]
    assert {tuple(colour.round().astype(int).tolist()) for colour in blended} <= colours(shown)


def test_classes_that_nobody_saw_take_no_room() -> None:
    larger = np.zeros((400, 400), np.int64)
    larger[:3, :3] = COUNTS
    names = [*NAMES, *(f"class {k}" for k in range(3, 400))]
    assert np.array_equal(as_picture(Confusion.of(larger), names), as_picture(Confusion.of(COUNTS), NAMES))


@pytest.mark.parametrize("classes", [1, 40, 171, 847])
def test_any_number_of_classes_fits(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 5
    shown = as_picture(Confusion.of(counts), [f"a class of number {k}" for k in range(classes)])
    assert max(shown.shape) <= 1500
    assert (shown == FULL).all(-1).any()


def test_nothing_counted() -> None:
    empty = Confusion(2)
    assert as_csv(empty, ["a", "b"]) == "truth,a,b\na,0,0\nb,0,0\n"
    assert colours(as_picture(empty, ["a", "b"])) == {PAPER}
