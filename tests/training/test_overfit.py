"""The whole training path on eight pictures: if it cannot learn them by heart, something is broken."""

from pathlib import Path

import cv2
import numpy as np

from model.checkpoint import load
from model.packaged import packaged_checkpoint
from model.vocabulary import ClassName
from training.config import TrainConfig
from training.datasets.layout import SegmentationFolder, write_classes, write_sample
from training.datasets.storybook.classes import CLASSES, TRAINED
from training.datasets.storybook.scene import SCENES, draw
from training.evaluate import evaluate
from training.loop import train

PICTURES = 8
SIDE = 192
WANTED = 95.0  # mIoU, percent


def test_eight_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    """Encoders as they come with the package; everything after them starts at random."""
    data = tmp_path / "data"
    for i in range(PICTURES):
        scene = draw(
            np.random.default_rng([5, i]), SCENES[i % len(SCENES)], height=SIDE, width=SIDE, allowed=TRAINED
        )
        write_sample(data, "train", f"{i}", scene.picture, scene.labels)
    write_classes(
        data, [ClassName(name=name) for name in CLASSES], [name in TRAINED for name in CLASSES], 255, "eight"
    )
    config = TrainConfig(
        data=str(data),
        init=str(packaged_checkpoint()),
        fresh_decoder=True,
        steps=240,
        batch=4,
        learning_rate=1e-3,
        warmup_steps=20,
        crop=SIDE,
        short_sides=(SIDE,),
        color_jitter=False,
        flip=False,
        points=2048,
        amp="bfloat16",
        workers=1,
        log_every=50,
        pictures_every=0,
        evaluate_every=0,
    )
    run = train(config, tmp_path / "run")
    cv2.setNumThreads(-1)
    ebseg = load(run / "checkpoint").ebseg
    found = evaluate(ebseg, SegmentationFolder(data, "train"), shown=False)
    assert found.miou_all is not None
    assert found.miou_all >= WANTED
