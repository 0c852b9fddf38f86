"""Groups, schedule and clipping, on the real variants' names."""

import pytest
import torch
from torch import nn

from model import VARIANTS, TrainingClasses
from model.network.build import build
from training.config import TrainConfig
from training.errors import TrainingError
from training.run.optim import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    set_learning_rate,
    split_by_decay,
)

CLASSES = TrainingClasses.of(["a"])
CONFIG = TrainConfig(data="d", variant="base")


def test_base_trains_what_the_paper_says() -> None:
    """26.6 M parameters (Table 7)."""
    decayed, kept = split_by_decay(build(VARIANTS["base"], CLASSES, seed=None))
    assert not decayed.keys() & kept.keys()
    assert sum(parameter.numel() for parameter in [*decayed.values(), *kept.values()]) == 26_622_403


def test_groups_by_name() -> None:
    model = build(VARIANTS["tiny"], CLASSES, seed=None)
    decayed, kept = split_by_decay(model)
    assert {*decayed, *kept} == {name for name, x in model.named_parameters() if x.requires_grad}
    tables = {
        "backbone.pos_embed",
        "clip_image.positional_embedding",
        "transformer_decoder.level_embed",
        "transformer_decoder.query_features",
        "transformer_decoder.query_places",
    }
    norms = {name for name in kept if "norm" in name}
    assert kept.keys() == tables | norms
    fusion = {f"fusion.layers.{i}.norm.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert {name for name in decayed if "norm" in name} == fusion
    assert {"background", "pixel_decoder.level_embed"} <= decayed.keys()
    assert "transformer_decoder.embedding_scale" in decayed
    assert "pixel_decoder.layers.0.linear1.weight" in decayed
    assert "pixel_decoder.layers.0.linear1.bias" in decayed


def test_optimizer() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    model[0].bias.requires_grad_(False)
    optimizer, names = build_optimizer(model, CONFIG)
    assert names == ["0.weight", "1.weight", "1.bias", "2.weight"]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
    with pytest.raises(TrainingError, match="no parameter"):
        build_optimizer(nn.Linear(1, 1).requires_grad_(False), CONFIG)


def test_poly_schedule() -> None:
    assert learning_rate(CONFIG, 0) == 1e-4
    assert learning_rate(CONFIG, 60_000) == pytest.approx(1e-4 * 0.5**0.9)
    assert learning_rate(CONFIG, 119_999) == pytest.approx(1e-4 * (1 / 120_000) ** 0.9)
    assert learning_rate(CONFIG, 120_000) == 0


def test_warm_up() -> None:
    config = TrainConfig(data="d", variant="base", steps=100, warmup_steps=3, poly_power=0)
    rates = [learning_rate(config, step) for step in range(5)]
    assert rates == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4])


def test_clipping_is_over_the_whole_model() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1))
    optimizer, _ = build_optimizer(model, CONFIG)
    for parameter, value in zip(model.parameters(), (3.0, 0.0, 4.0, 0.0), strict=True):
        parameter.grad = torch.full_like(parameter, value)
    assert clip_gradients(optimizer, 0.01).item() == pytest.approx(5)
    found = [parameter.grad.item() for parameter in model.parameters() if parameter.grad is not None]
    assert found == pytest.approx([0.006, 0, 0.008, 0], abs=1e-6)
    assert clip_gradients(optimizer, 1.0).item() == pytest.approx(0.01, rel=1e-3)
    found = [parameter.grad.item() for parameter in model.parameters() if parameter.grad is not None]
    assert found == pytest.approx([0.006, 0, 0.008, 0], abs=1e-6)
