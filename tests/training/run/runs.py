"""A data set and a model so small that a training step takes milliseconds, and runs in other processes."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model import VARIANTS, EBSegConfig, TrainingClasses
from model.network.build import build
from model.network.config import ClipConfig, PixelDecoderConfig, SamConfig, TransformerDecoderConfig
from model.storage.checkpoint import Provenance, save
from model.vocabulary.classes import ClassName
from training.config import TrainConfig
from training.data.writing import write_classes, write_sample

ROOT = Path(__file__).parents[3]
SIDE = 64
CLASSES = ("red", "green", "blue", "yellow")  # yellow is a new class
COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 30]])
CODE = """
import json, sys
from training.config import TrainConfig
from training.run.trainer import train
train(TrainConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2])
"""


def micro_config() -> EBSegConfig:
    return dataclasses.replace(
        VARIANTS["tiny"],
        clip=ClipConfig(
            joint_width=16,
            image_size=32,
            patch_size=8,
            image_width=32,
            image_layers=4,
            image_heads=2,
            text_width=16,
            text_layers=1,
            text_heads=1,
            context_length=32,
        ),
        sam=SamConfig(
            image_size=SIDE,
            patch_size=16,
            width=32,
            layers=4,
            heads=2,
            window=7,
            global_blocks=(0, 1, 2, 3),
        ),
        pixel_decoder=PixelDecoderConfig(layers=1, heads=2, points=2, feed_forward=32, norm_groups=4),
        transformer_decoder=TransformerDecoderConfig(layers=3, heads=2, queries=8, feed_forward=32),
        fused_layers=(1, 2, 3),
        hidden=16,
        short_side=SIDE,
        long_side=4 * SIDE,
    )


def write_micro_checkpoint(folder: Path) -> Path:
    ebseg = build(micro_config(), TrainingClasses.of(["a", "b"]), seed=5)
    save(ebseg, folder, Provenance(name="micro", version=1, untrained=True))
    return folder


def scene(rng: np.random.Generator, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Red on the left, another class on the right, an unknown corner."""
    labels = np.zeros((side, side), dtype=np.int64)
    labels[:, int(rng.integers(side // 4, 3 * side // 4)) :] = int(rng.integers(1, len(CLASSES)))
    labels[:6, :6] = -1
    noise = rng.integers(-20, 21, (side, side, 3))
    return (COLORS[np.maximum(labels, 0)] + noise).clip(0, 255).astype(np.uint8), labels


def write_dataset(
    folder: Path, pictures: int = 6, trained: Sequence[bool] = (True, True, True, False)
) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(pictures):
            write_sample(folder, split, f"{split}{number}", *scene(rng))
    write_classes(folder, [ClassName(name=name) for name in CLASSES], trained, 255, "micro")
    return folder


def small_set(folder: Path) -> Path:
    """One picture of one class."""
    picture, labels = scene(np.random.default_rng(0))
    write_sample(folder, "val", "val0", picture, np.minimum(labels, 0))
    write_classes(folder, [ClassName(name=CLASSES[0])], [True], 255, "small")
    return folder


def write_places(folder: Path, pictures: int) -> tuple[str, str]:
    """A checkpoint that was trained on all classes but yellow, version 3 of "micro", and a data set."""
    checkpoint = folder / "micro" / "3"
    ebseg = build(micro_config(), TrainingClasses.of(CLASSES[:3]), seed=1)
    save(ebseg, checkpoint, Provenance(name="micro", version=3, untrained=False))
    return str(checkpoint), str(write_dataset(folder / "data", pictures=pictures))


def micro_run(folder: Path, **fields: Any) -> TrainConfig:
    """A run on `folder`/data from `folder`/micro/1, both made when they are not there."""
    data, init = folder / "data", folder / "micro" / "1"
    if not data.exists():
        write_dataset(data)
        write_micro_checkpoint(init)
    values: dict[str, Any] = {
        "data": str(data),
        "init": str(init),
        "steps": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "crop": SIDE,
        "short_sides": (48, 64, 80),
        "points": 64,
        "workers": 1,
        "log_every": 1,
        "pictures_every": 0,
        "save_every": 1000,
        "evaluate_every": 0,
    }
    return TrainConfig(**values | fields)


def command(config: TrainConfig, out: Path) -> list[str]:
    """A process that trains."""
    return [sys.executable, "-W", "error", "-c", CODE, json.dumps(config.to_dict()), str(out)]


def start(line: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def log_of(run: Path) -> list[dict[str, Any]]:
    path = run / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def events(run: Path) -> Any:
    """What TensorBoard shows of a run."""
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return found
