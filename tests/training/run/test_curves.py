"""The log, the TensorBoard files read back, and the panels."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ebseg_client.drawing import overlay
from model import TrainingClasses
from model.network.build import build
from service.segmentation.colors import class_colors
from tests.training.run.runs import events, micro_config, write_dataset
from training.data.layout import SegmentationFolder
from training.evaluation.pictures import GAP, LINE, panel
from training.run import curves
from training.run.curves import Curves, make_panels, sums_by_kind
from training.run.loggers import TensorBoardLogger

TERMS = {"mask/0": 1.0, "mask/1": 2.0, "dice/0": 0.5}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_terms_are_added_up_over_the_stages() -> None:
    assert sums_by_kind(TERMS) == {"mask": 3.0, "dice": 0.5}


def test_log_and_curves(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 0, [TensorBoardLogger(tmp_path, 0)])
    curves.log(1, TERMS, {"loss": 3.5, "learning_rate": 1e-4, "gradient_norm": 2.0, "rate": 8.0})
    curves.log(2, TERMS, {"loss": 3.25, "learning_rate": 5e-5, "gradient_norm": 1.0, "rate": 9.0})
    curves.scores(2, {"miou_all": 40.0})
    curves.pictures(2, [np.full((4, 6, 3), 7, np.uint8)])
    curves.close()
    assert lines(tmp_path)[0] == {
        "step": 1,
        "loss": 3.5,
        "learning_rate": 1e-4,
        "gradient_norm": 2.0,
        "rate": 8.0,
        "terms": {"mask": 3.0, "dice": 0.5},
    }
    found = events(tmp_path)
    assert set(found.Tags()["scalars"]) == {
        *(f"train/{name}" for name in ("loss", "learning_rate", "gradient_norm", "rate")),
        "loss/mask",
        "loss/dice",
        "evaluation/miou_all",
    }
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 3.5), (2, 3.25)]
    assert [event.value for event in found.Scalars("loss/mask")] == [3, 3]
    (image,) = found.Images("pictures/0")
    assert (image.step, image.width, image.height) == (2, 6, 4)


def test_pictures_are_drawn_as_the_service_draws(tmp_path: Path) -> None:
    """Read back from TensorBoard's file: fill, colours and outlines, also of a picture that has wide ones."""
    rng = np.random.default_rng(3)
    names = [f"class {number}" for number in range(70)]
    colors = class_colors([None] * len(names))
    for step, (height, width) in enumerate(((240, 300), (250, 2000)), 1):
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        truth, prediction = (
            np.kron(rng.integers(0, 70, (5, 10)), np.ones((height // 5, width // 10), np.int64))
            for _ in range(2)
        )
        shown = panel(picture, truth, prediction, names)
        folder = tmp_path / str(step)
        curves = Curves(folder, step - 1, [TensorBoardLogger(folder, step - 1)])
        curves.pictures(step, [shown])
        curves.close()
        event = events(folder).Images("pictures/0")[-1]
        assert event.step == step
        read = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        for place, labels in ((1, truth), (2, prediction)):
            left = GAP + place * (width + GAP)
            tile = read[LINE : LINE + height, left : left + width]
            assert np.array_equal(tile, overlay(picture, labels.astype(np.uint16) + 1, colors))


def test_a_gradient_without_end(tmp_path: Path) -> None:
    curves = Curves(tmp_path, 0, [TensorBoardLogger(tmp_path, 0)])
    curves.log(1, TERMS, {"loss": 1.0, "gradient_norm": float("inf")})
    curves.close()
    assert lines(tmp_path)[0]["gradient_norm"] is None


def test_what_a_cut_off_run_logged_too_much_is_removed(tmp_path: Path) -> None:
    first = Curves(tmp_path, 0, [TensorBoardLogger(tmp_path, 0)])
    for step in (1, 2, 3):
        first.log(step, TERMS, {"loss": float(step)})
    first.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    second = Curves(tmp_path, 1, [TensorBoardLogger(tmp_path, 1)])
    second.log(2, TERMS, {"loss": 9.0})
    second.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 9.0)]
    curve = [(event.step, event.value) for event in events(tmp_path).Scalars("train/loss")]
    assert curve == [(1, 1.0), (2, 9.0)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Picture, truth, prediction and names of each panel that is drawn."""
    calls: list[tuple[Any, ...]] = []

    def recorded(*arguments: Any) -> Any:
        calls.append(arguments)
        return panel(*arguments)

    monkeypatch.setattr(curves, "panel", recorded)
    return calls


def test_panels(tmp_path: Path, drawn: list[tuple[Any, ...]]) -> None:
    data = SegmentationFolder(write_dataset(tmp_path), "val")
    ebseg = build(micro_config(), TrainingClasses.of(["red", "green", "blue"]), seed=0)
    panels = make_panels(ebseg, data, data.vocabulary(), None)
    assert len(panels) == len(drawn) == 4
    assert all(shown.ndim == 3 and shown.dtype == np.uint8 for shown in panels)
    for sample, (picture, truth, prediction, names) in zip(data, drawn, strict=False):
        assert (picture == sample.picture).all()
        assert (truth == sample.labels).all()
        assert prediction.shape == truth.shape
        assert set(np.unique(prediction)) <= {0, 1, 2, 3}
        assert names == ["red", "green", "blue", "yellow"]


@pytest.mark.parametrize("size", [(300, 600), (64, 1)])
def test_panels_are_small(tmp_path: Path, size: tuple[int, int], drawn: list[tuple[Any, ...]]) -> None:
    class One:
        names = ("one",)
        trained = (True,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            class Sample:
                name = "one"
                picture = np.zeros((*size, 3), np.uint8)
                labels = np.zeros(size, np.int64)

            return Sample()

    ebseg = build(micro_config(), TrainingClasses.of(["red"]), seed=0)
    data = SegmentationFolder(write_dataset(tmp_path), "val")
    make_panels(ebseg, One(), data.vocabulary(), 32)
    assert [parts[0].shape for parts in drawn] == [{(300, 600): (128, 256, 3), (64, 1): (64, 1, 3)}[size]]
