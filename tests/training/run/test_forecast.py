"""Memory and time before a run: counted on tensors without content, against what autograd really keeps."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.network.ebseg import EBSeg
from tests.training.run.runs import micro_run
from training.commands import train as command
from training.config import TrainConfig
from training.data.mixture import Mixture
from training.errors import TrainingError
from training.run import forecast as forecasting
from training.run.folder import RUN_CONFIG, read_config
from training.run.forecast import CONTEXT, SLACK, USED, fitted, flops_of, forecast, memory_of
from training.run.loss_module import start_model
from training.run.pace import GIB, forward_flops
from training.run.parts import prepare
from training.run.trainer import train

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return micro_run(tmp_path, batch=8)


@pytest.fixture
def ebseg(config: TrainConfig) -> EBSeg:
    made, _ = start_model(config, Mixture.of(config).training_classes())
    prepare(made, config)
    return made.train()


def really_kept(ebseg: EBSeg, side: int) -> int:
    """Bytes that autograd keeps of one picture that is really computed, weights aside."""
    kept: dict[int, Tensor] = {}
    weights = {one.untyped_storage().data_ptr() for one in (*ebseg.parameters(), *ebseg.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = ebseg.stages(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert outputs
    return sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in weights)


def test_what_autograd_keeps_is_counted(ebseg: EBSeg, config: TrainConfig) -> None:
    (weights, training), picture = memory_of(ebseg, config, False)
    assert weights == 4 * sum(one.numel() for one in ebseg.parameters())
    assert training == 12 * sum(one.numel() for one in ebseg.parameters() if one.requires_grad)
    assert picture == pytest.approx(really_kept(ebseg, config.crop), rel=0.1)
    (_, averaged), _ = memory_of(ebseg, dataclasses.replace(config, ema=0.5), False)
    assert averaged == training * 4 // 3
    _, twice = memory_of(ebseg, config, True)
    assert twice < 0.9 * picture
    assert not ebseg.backbone.recompute
    _, larger = memory_of(ebseg, dataclasses.replace(config, crop=2 * config.crop), False)
    assert larger > 3 * picture


def test_operations_are_those_of_a_real_pass(ebseg: EBSeg, config: TrainConfig) -> None:
    everything, backbone = flops_of(ebseg, config)
    assert everything == pytest.approx(forward_flops(ebseg, config.crop), rel=0.02)
    assert 0.05 * everything < backbone < everything


def test_as_few_parts_as_fit(ebseg: EBSeg, config: TrainConfig) -> None:
    (weights, training), picture = memory_of(ebseg, config, False)

    def gib(pictures: float) -> float:
        return (weights + SLACK * (training + pictures * picture) + CONTEXT) / USED / GIB

    for pictures, parts in ((8.1, 1), (4.5, 2), (2.1, 4), (1.1, 8)):
        found = fitted(ebseg, config, 1, gib(pictures))
        assert (found.accumulate, found.activation_checkpointing) == (parts, False)
        assert forecast(ebseg, found, 1, CPU).part == 8 // parts
    assert fitted(ebseg, config, 4, gib(2.1)).accumulate == 1  # four processes have two pictures each
    found = fitted(ebseg, config, 1, gib(0.99))
    assert (found.accumulate, found.activation_checkpointing) == (8, True)
    with pytest.raises(TrainingError, match=r"0\.1 GiB are too little: one image of 64 pixels takes 0\."):
        fitted(ebseg, config, 1, 0.1)


def test_time_is_arithmetic_over_the_rate(
    ebseg: EBSeg, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "_rate", lambda *_: (2e9, "which the test says"))
    found = forecast(ebseg, config, 2, CPU)
    everything, backbone = flops_of(ebseg, config)
    assert found.step_flops == pytest.approx(8 * 3 * everything)
    assert found.seconds == pytest.approx(config.steps * found.step_flops / 4e9)
    assert "2 x 0.002 TFLOP/s, which the test says; 4 steps of " in found.text()
    twice = forecast(ebseg, dataclasses.replace(config, activation_checkpointing=True), 2, CPU)
    assert twice.step_flops == pytest.approx(found.step_flops + 8 * backbone)
    monkeypatch.setattr(forecasting, "_rate", lambda *_: (None, "no data sheet"))
    assert "time      not known: no data sheet; 4 steps of" in forecast(ebseg, config, 2, CPU).text()


def test_a_run_keeps_what_was_chosen_when_it_began(ebseg: EBSeg, config: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    little = dataclasses.replace(config, steps=2)
    (weights, training), picture = memory_of(ebseg, config, False)
    gib = (weights + SLACK * (training + 2.5 * picture) + CONTEXT) / USED / GIB
    train(little, run, max_steps=1, gpu_memory=gib)
    chosen = read_config(run / RUN_CONFIG)
    assert (chosen.accumulate, chosen.activation_checkpointing) == (4, False)
    train(little, run, gpu_memory=100)
    assert read_config(run / RUN_CONFIG) == chosen


def test_a_dry_run_trains_nothing(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "_rate", lambda *_: (1e9, "measured now"))
    words = [
        "train",
        str(tmp_path / "run"),
        "--data",
        config.data,
        "--init",
        str(config.init),
        "--crop",
        "64",
    ]

    def printed(*more: str) -> str:
        parser = argparse.ArgumentParser()
        command.add(parser.add_subparsers())
        args = parser.parse_args([*words, "--crop", "64", "--batch", "8", "--dry-run", *more])
        assert args.run(args) == 0
        return capsys.readouterr().out

    text = printed("--gpu-memory", "40")
    assert text.startswith("images    8 at a time, a step in 1 part; SAM's blocks are kept\nmemory ")
    values: dict[str, Any] = json.loads(printed("--json", "--accumulate", "4"))
    assert (values["part"], values["steps"]) == (2, 120_000)
    assert values["seconds"] > 0
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match="--print-config computes nothing"):
        printed("--print-config")
