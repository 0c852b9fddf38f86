import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from training.config import TrainConfig
from training.errors import TrainingError

SOURCES = Path(__file__).parents[2] / "training"


def test_defaults_are_the_papers() -> None:
    config = TrainConfig(data="d", variant="base")
    assert (config.batch, config.steps, config.learning_rate, config.crop) == (16, 120_000, 1e-4, 640)
    assert (config.weight_decay, config.clip_norm, config.poly_power) == (0.05, 0.01, 0.9)
    assert config.short_sides == (320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960)
    assert (config.points, config.ssc, config.ssc_embeddings, config.ssc_stages) == (
        12_544,
        "official",
        ("supervised",),
        1,
    )


def test_json_round_trip() -> None:
    config = TrainConfig(
        data="d", init="i", fresh_decoder=True, val_split="val", short_sides=(3, 4), ssc="cosine", ema=0.5
    )
    values = json.loads(json.dumps(config.to_dict()))
    assert TrainConfig.from_dict(values) == config
    assert TrainConfig.from_dict({"data": "d", "variant": "base", "clip_norm": 1}).clip_norm == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 3}, "field 'stepz' is unknown"),
        ({"data": None}, "data must be of type str, got None"),
        ({"steps": "3"}, "steps must be of type int, got '3'"),
        ({"steps": True}, "steps must be of type int, got True"),
        ({"steps": 0}, "steps must be more than 0, got 0"),
        ({"ema": 1.0}, "ema must be at least 0 and less than 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be more than 0"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"short_sides": 3}, "short_sides must be a list, got 3"),
        ({"short_sides": [3, "4"]}, "short_sides must be of type int, got '4'"),
        ({"short_sides": []}, "short_sides must be one or more"),
        ({"pad_value": 256}, "pad_value must lie in 0..255"),
        ({"amp": "half"}, "amp must be one of off, bfloat16, float16; got 'half'"),
        ({"ssc_embeddings": ["frozen"]}, "ssc_embeddings must be one of supervised, mask_attention"),
        ({"ssc_embeddings": []}, "ssc_embeddings is empty"),
        ({"val_split": 3}, "val_split must be of type str, got 3"),
        ({"evaluate_short_side": 0}, "evaluate_short_side must be more than 0"),
        ({"variant": None}, "give either variant or init"),
        ({"init": "i"}, "give either variant or init"),
        ({"fresh_decoder": True}, "fresh_decoder needs init"),
        ({"batch": 5, "accumulate": 2}, "batch 5 cannot be split into accumulate 2 parts"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_dict({"data": "d", "variant": "base"} | change)


def test_missing_field_and_no_object() -> None:
    with pytest.raises(TrainingError, match="field 'data' is missing"):
        TrainConfig.from_dict({"variant": "base"})
    with pytest.raises(TrainingError, match="must be an object"):
        TrainConfig.from_dict([])


def test_differences() -> None:
    one = TrainConfig(data="d", variant="base")
    other = dataclasses.replace(one, steps=7, save_every=3, seed=1, flip=False)
    assert one.differences(other) == ["flip", "seed"]
    assert one.differences(one) == []


def test_every_field_is_read_somewhere() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py") if path.name != "config.py"
    )
    unread = [item.name for item in dataclasses.fields(TrainConfig) if f"config.{item.name}" not in code]
    assert unread == []
