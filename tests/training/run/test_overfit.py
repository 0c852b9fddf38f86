"""The whole training path on a few pictures: if it cannot learn them by heart, something is broken."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import ClassName
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.writing import write_classes, write_sample
from training.evaluation.evaluate import evaluate
from training.run.trainer import train
from training.storybook.classes import CLASSES, TRAINED
from training.storybook.scene import SCENES, draw


def learned(folder: Path, *, pictures: int, side: int, **fields: Any) -> float:
    """mIoU, percent, on square scenes that were trained on.

    Encoders as they come with the package; everything after them starts at random. Numbers are float32:
    a processor without bfloat16 would be fifty times slower with it.
    """
    data = folder / "data"
    for i in range(pictures):
        scene = draw(
            np.random.default_rng([5, i]), SCENES[i % len(SCENES)], height=side, width=side, allowed=TRAINED
        )
        write_sample(data, "train", f"{i}", scene.picture, scene.labels)
    write_classes(
        data, [ClassName(name=name) for name in CLASSES], [name in TRAINED for name in CLASSES], 255, "few"
    )
    values: dict[str, Any] = {
        "data": str(data),
        "init": str(packaged_checkpoint()),
        "fresh_decoder": True,
        "warmup_steps": 20,
        "crop": side,
        "short_sides": (side,),
        "color_jitter": False,
        "flip": False,
        "workers": 1,
        "log_every": 50,
        "pictures_every": 0,
        "evaluate_every": 0,
    }
    run = train(TrainConfig(**values | fields), folder / "run")
    cv2.setNumThreads(-1)
    found = evaluate(load(run / "checkpoint").ebseg, SegmentationFolder(data, "train"), shown=False)
    assert found.miou_all is not None
    return found.miou_all


def test_two_pictures_are_mostly_learned(tmp_path: Path) -> None:
    sixty = {"steps": 60, "batch": 2, "learning_rate": 2e-3, "points": 512}
    assert learned(tmp_path, pictures=2, side=96, **sixty) >= 35


@pytest.mark.slow
def test_eight_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    long = {"steps": 240, "batch": 4, "learning_rate": 1e-3, "points": 2048}
    assert learned(tmp_path, pictures=8, side=192, **long) >= 95
