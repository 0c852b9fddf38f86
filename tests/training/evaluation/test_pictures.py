"""Panels and contact sheets, by their pixels."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.errors import TrainingError
from training.evaluation.pictures import (
    GAP,
    IGNORED_COLOUR,
    LINE,
    PALE,
    WRONG,
    class_colour,
    panel,
    save_contact_sheet,
    save_picture,
)

SIDE = 240  # large enough to be shown as it is
GREY = np.full((SIDE, SIDE, 3), 100, np.uint8)
HALVES = np.repeat(np.repeat([[0, 1]], SIDE, 0), SIDE // 2, 1)


def colour_distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def test_colours_stay_and_differ() -> None:
    colours = [class_colour(index) for index in range(60)]
    assert colours == [class_colour(index) for index in range(60)]
    assert len(set(colours)) == 60
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    neighbours = [colour_distance(one, other) for one, other in itertools.pairwise(colours)]
    assert min(neighbours) > 60
    assert class_colour(-1) == IGNORED_COLOUR


def test_a_panel_marks_errors() -> None:
    truth = HALVES.copy()
    truth[:40] = -1
    found = panel(GREY, truth, np.ones((SIDE, SIDE), np.int64), ["sky", "sea"], errors=True)
    assert found.shape[1] == 4 * SIDE + 5 * GAP
    errors = found[LINE : LINE + SIDE, 3 * (SIDE + GAP) + GAP :][:, :SIDE]
    red = (errors == WRONG).all(2)
    assert np.array_equal(red, truth == 0)
    assert (errors[~red] == 100 // 2 + PALE).all()


def test_a_panel_shows_picture_truth_and_prediction() -> None:
    truth = HALVES.copy()
    truth[:40] = -1
    found = panel(GREY, truth, np.ones((SIDE, SIDE), np.uint16), ["sky", "sea"])
    assert found.dtype == np.uint8
    assert found.shape[1] == 3 * SIDE + 4 * GAP
    assert found.shape[0] > SIDE + LINE + GAP
    left = [GAP + number * (SIDE + GAP) for number in range(3)]
    middle = LINE + SIDE // 2
    assert found[middle, left[0] + 5].tolist() == [100, 100, 100]

    def mixed(index: int) -> list[int]:
        return [round(0.35 * value + 0.65 * 100) for value in class_colour(index)]

    assert found[middle, left[1] + 5].tolist() == mixed(0)
    assert found[middle, left[1] + SIDE - 5].tolist() == mixed(1)
    assert found[LINE + 5, left[1] + 5].tolist() == mixed(-1)
    assert found[middle, left[2] + 5].tolist() == mixed(1)
    assert found[middle, left[1] + SIDE // 2].tolist() == list(class_colour(1))  # an outline


def test_small_pictures_are_enlarged_whole() -> None:
    found = panel(GREY[:32, :48], HALVES[:32, 96:144], HALVES[:32, 96:144], ["sky", "sea"])
    assert found.shape[1] == 3 * 7 * 48 + 4 * GAP


def test_a_long_legend_is_wrapped() -> None:
    few = panel(GREY, HALVES, HALVES, ["sky", "sea"])
    many = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 80
    names = [f"a rather long class name, {number}" for number in range(80)]
    assert panel(GREY, many, many, names).shape[0] >= few.shape[0] + 10 * LINE
    endless = panel(GREY, HALVES, HALVES, ["x" * 200, "y" * 200])
    assert endless.shape == (few.shape[0] + LINE, *few.shape[1:])


def test_what_makes_no_panel() -> None:
    with pytest.raises(TrainingError, match="one size"):
        panel(GREY, HALVES[1:], HALVES, ["sky", "sea"])
    with pytest.raises(TrainingError, match="class 1 has no name, there are 1"):
        panel(GREY, HALVES, HALVES, ["sky"])


def test_a_contact_sheet_has_two_a_row(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(tmp_path / "panels" / f"{number}.png")
        save_picture(paths[-1], np.full((100, 400, 3), 80 * number, np.uint8))
    save_contact_sheet(tmp_path / "sheet.png", paths)
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened)
    width = (1600 - GAP) // 2 - GAP
    height = round(100 * width / 400)
    assert sheet.shape == (2 * height + 3 * GAP, 1600, 3)
    middles = [(GAP + height // 2, GAP + width // 2), (GAP + height // 2, 1600 - GAP - width // 2)]
    assert [int(sheet[y, x, 0]) for y, x in middles] == [0, 80]
    assert int(sheet[2 * GAP + height + height // 2, GAP + width // 2, 0]) == 160
    assert sheet[-GAP - height // 2, -GAP - width // 2].tolist() == [255, 255, 255]
