"""The benchmark of a training step, on the tiny model: what it prints adds up."""

import argparse
import json
import statistics
from typing import Any

import pytest
import torch

import model.commands.bench
from model import VARIANTS, TrainingClasses
from model.network.build import build
from tests.pretended import pretended_device
from tests.training.run.runs import micro_config
from training import bench
from training.commands.bench import add_benchmark
from training.run.pace import forward_flops


def parser() -> argparse.ArgumentParser:
    """The benchmarks as `ebseg` puts them together."""
    whole = argparse.ArgumentParser()
    add_benchmark(model.commands.bench.add_commands(whole.add_subparsers()))
    return whole


def run(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    args = parser().parse_args(["bench", "train", "--variant", "tiny", "--size", "64", *options])
    assert args.run(args) == 0
    printed = capsys.readouterr()
    assert "warm-up 3 of 3" in printed.err
    result: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
    return result


def test_figures_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--batch", "1", "--masks", "3", "--points", "64", "--steps", "3")
    assert (result["variant"], result["batch"], result["masks"], result["points"]) == ("tiny", 1, 3, 64)
    assert len(result["seconds"]) == len(result["matmul_seconds"]) == result["steps"] == 3
    median = statistics.median(result["seconds"])
    assert result["seconds_median"] == median
    rate = 2 * 2048**3 / statistics.median(result["matmul_seconds"])
    assert result["matmul_flops_per_second"] == pytest.approx(rate)
    assert result["forward_ideal_seconds"] == pytest.approx(result["forward_flops"] / rate)
    assert result["ratio"] == pytest.approx(3 * result["forward_ideal_seconds"] / median)
    least, most = result["ratio_spread"]
    assert 0 < least <= most
    assert result["ratio_of_processor_time"] > 0
    assert result["seconds_by_part"].keys() == {"forward", "loss", "backward", "optimizer"}
    assert max(result["seconds_by_part"].values()) < max(result["seconds"])
    assert result["peak_over_weights_bytes"] == result["peak_bytes"] - result["weights_bytes"] > 0
    assert 0 < result["loss"] < 1e6
    assert result["launches"] > 5000
    assert (result["device"], result["card"]) == ("cpu", None)


def test_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "tiny", micro_config())
    with pretended_device() as device:
        result = bench.bench_train(
            variant="tiny",
            size=64,
            batch=1,
            masks=2,
            points=16,
            dtype="float32",
            device=str(device),
            steps=1,
            progress=lambda step: None,
        )
    assert result["device"] == str(device)
    assert result["ratio"] > 0
    assert result["ratio_of_processor_time"] is None


def test_half_precision(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--batch", "1", "--masks", "2", "--points", "16", "--steps", "1", "--dtype", "bfloat16")
    result = run(capsys, *options)
    assert result["dtype"] == "bfloat16"
    assert result["matmul_dtype"] == ("float32" if result["dtype_emulated"] else "bfloat16")


@pytest.mark.parametrize("wrong", [["--batch", "0"], ["--dtype", "float16"], ["--steps", "x"]])
def test_wrong_options(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["bench", "train", *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_masks_cover_each_picture_once() -> None:
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    images, targets, text = bench._batch(ebseg, 48, 2, 12)
    assert images.shape == (2, 3, 48, 48)
    assert text.norm(dim=-1).allclose(torch.ones(171))
    for target in targets:
        assert target.masks.shape == (12, 48, 48)
        assert torch.equal(target.masks.sum(0), torch.ones(48, 48, dtype=torch.int64))
        assert len(set(target.labels.tolist())) == 12


def test_counting_leaves_the_model_as_it_was() -> None:
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0).train()
    trained = [name for name, parameter in ebseg.named_parameters() if parameter.requires_grad]
    one, two = forward_flops(ebseg, 64), forward_flops(ebseg, 64, 2)
    assert 1e8 < one < 2e9
    assert two == pytest.approx(2 * one, rel=0.02)
    assert [name for name, parameter in ebseg.named_parameters() if parameter.requires_grad] == trained
