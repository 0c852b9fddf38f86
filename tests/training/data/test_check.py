"""`ebseg check`: each thing that can be wrong with a data set is found, and a good one has nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ebseg
from model.vocabulary.classes import ClassName
from training.data.check import _rare, check_data, specks
from training.data.writing import write_classes, write_sample

SIDE = 72
NAMES = ("sky", "sea", "boat")


def pixels(seed: int, side: int = SIDE) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def truth(side: int = SIDE) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    labels = np.zeros((side, side), np.int64)
    labels[side // 2 :] = 1
    labels[side // 3 : side // 2, 20:40] = 2
    return labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number in range(3):
        write_sample(root, "train", f"t{number}", pixels(number), truth())
    write_sample(root, "val", "v0", pixels(9), truth())
    write_classes(root, [ClassName(name=name) for name in NAMES], [True] * 3, 255, "harbour")
    return root


def test_nothing_is_wrong(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check_data(data, shown=False)
    assert (report.findings, report.errors) == ((), 0)
    assert report.pictures == {"train": 3, "val": 1}
    assert report.shown["train"].tolist() == [3, 3, 3]
    assert report.pixels["val"].tolist() == np.bincount(truth().ravel()).tolist()
    assert ebseg.main(["check", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "nothing is wrong"
    assert lines[-1].startswith("next: ebseg train runs/NAME --config own-data --data ")


def labels_of(data: Path, name: str, labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    Image.fromarray(labels.astype(np.uint8)).save(data / "labels" / "train" / f"{name}.png")


def turned(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(1)).save(data / "images" / "train" / "t1.jpg", exif=exif)


def noisy(data: Path) -> None:
    labels_of(data, "t1", np.random.default_rng(0).integers(0, 3, (SIDE, SIDE)))


def unseen(data: Path) -> None:
    for name in ("t0", "t1", "t2"):
        labels_of(data, name, np.where(truth() == 2, 255, truth()))


@pytest.mark.parametrize(
    ("damage", "severity", "message", "pictures"),
    [
        (
            lambda d: labels_of(d, "t1", truth() * 40),
            "error",
            "label 40 is no class: labels go from 0",
            ["t1"],
        ),
        (lambda d: labels_of(d, "t1", truth(80)), "error", "image and label map differ in size", ["t1"]),
        (
            lambda d: (d / "images/train/t1.jpg").write_bytes(b"\xff\xd8 no"),
            "error",
            "cannot be read",
            ["t1"],
        ),
        (lambda d: (d / "labels/train/t1.png").unlink(), "error", "has no label map", []),
        (lambda d: labels_of(d, "t1", np.full((SIDE, SIDE), 255)), "warning", "no pixel has a class", ["t1"]),
        (
            lambda d: labels_of(d, "t1", np.where(np.arange(SIDE) < 2, truth(), 255)),
            "warning",
            "less than 5% of the pixels have a class",
            ["t1"],
        ),
        (turned, "warning", "turned by its orientation mark; its label map must be", ["t1"]),
        (noisy, "warning", "full of single pixels", ["t1"]),
        (unseen, "warning", "train has no images with boat", []),
        (
            lambda d: write_sample(d, "train", "t0", pixels(9), truth()),
            "warning",
            "the same image is trained on and scored on",
            ["t0", "v0"],
        ),
        (
            lambda d: write_sample(d, "train", "t0", pixels(1), truth()),
            "warning",
            "the same image comes twice",
            ["t0", "t1"],
        ),
        (
            lambda d: write_sample(d, "train", "t0", pixels(7, 40), truth(40)),
            "warning",
            "a side is shorter than 64 pixels",
            ["t0"],
        ),
    ],
)
def test_what_is_wrong_is_found(
    damage: Callable[[Path], object], severity: str, message: str, pictures: list[str], data: Path
) -> None:
    damage(data)
    report = check_data(data, jobs=1, shown=False)
    found = [one for one in report.findings if message in one.text]
    assert len(found) == 1, report.findings
    assert found[0].severity == severity
    assert [name.partition("/")[2] for name in found[0].pictures] == pictures
    assert (report.errors > 0) == (severity == "error")


def test_the_worst_are_drawn_and_the_exit_code_says_that_nothing_can_train(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels_of(data, "t0", truth() * 40)
    turned(data)
    (data / "labels" / "train" / "t2.png").write_bytes(b"nothing")
    line = ["check", str(data), "--pictures", str(tmp_path / "worst")]
    assert ebseg.main([*line, "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    # the one that cannot be read cannot be drawn
    assert values["drawn"] == [str(tmp_path / "worst" / f"train-{name}.png") for name in ("t0", "t1")]
    assert (values["errors"], values["warnings"]) == (3, 3)  # turned, and two numbers of classes
    counts = {"pictures": 1, "pixels": 240}
    assert {"name": "boat", "train": counts, "val": counts} in values["classes"]
    with Image.open(values["drawn"][0]) as image:
        assert image.width > 2 * 224
    assert ebseg.main([*line, "--picture-count", "1"]) == 1
    printed = capsys.readouterr().out
    assert "error: label 40 is no class: labels go from 0 to 2, 255 is none: train/t0" in printed
    assert "the worst 1 images are in" in printed
    assert ebseg.main(["check", str(data), "--picture-count", "1"]) == 2


def test_classes_that_are_rare_share_a_sentence() -> None:
    names = [*(f"c{number}" for number in range(12)), "boat", "quay", "water"]
    shows = {
        "train": np.array([0] * 12 + [0, 1, 1]),
        "val": np.array([0] * 12 + [1, 0, 0]),
    }
    assert list(_rare(names, [True] * 15, shows)) == [
        "no image shows c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more",
        "train has no images with boat",
        "train has 1 image each with quay, water",
    ]


def test_specks() -> None:
    board = np.indices((8, 8)).sum(0) % 2
    assert specks(board) == 1.0
    assert specks(np.zeros((8, 8), np.uint8)) == 0.0
    assert specks(np.zeros((1, 8), np.uint8)) == 0.0


def test_a_data_set_without_pictures(data: Path) -> None:
    import shutil

    for kind in ("images", "labels"):
        shutil.rmtree(data / kind)
    assert "holds no split" in check_data(data, shown=False).findings[0].text
