"""`ebseg train`: options to a configuration, and a whole run."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import ebseg
from model.fetch.pull import REGISTRY
from model.fetch.resolve import order_of
from tests.training.run.runs import micro_run, write_dataset, write_micro_checkpoint
from training.commands.train import add, config_of, presets
from training.config import TrainConfig
from training.errors import TrainingError

LEAST = ("--data", "d", "--variant", "tiny")


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ebseg")
    add(parser.add_subparsers())
    return parser.parse_args(["train", *argv])


def config(*argv: str) -> TrainConfig:
    return config_of(parsed("run", *argv))


def test_every_field_is_an_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    printed = capsys.readouterr().out
    for item in dataclasses.fields(TrainConfig):
        assert f"--{item.name.replace('_', '-')}" in printed
    assert "default: 120000" in printed
    assert "default: 320 384" in printed
    assert "torchrun --nproc-per-node 8 -m ebseg train" in printed


def test_options() -> None:
    assert config(*LEAST) == TrainConfig(data="d", variant="tiny")
    found = config(
        *LEAST, "--steps", "7", "--short-sides", "4", "5", "--no-flip", "--compile", "--learning-rate", "1e-3"
    )
    assert found == TrainConfig(
        data="d", variant="tiny", steps=7, short_sides=(4, 5), flip=False, compile=True, learning_rate=1e-3
    )
    embeddings = config(*LEAST, "--ssc-embeddings", "supervised", "mask_attention", "--ssc", "cosine")
    assert embeddings.ssc_embeddings == ("supervised", "mask_attention")


def test_file_then_options_then_set(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"data": "d", "variant": "tiny", "steps": 1, "batch": 2, "seed": 3}))
    found = config(
        "--config", str(path), "--batch", "4", "--seed", "5", "--set", "seed=6", "--set", "ema=0.5"
    )
    assert (found.steps, found.batch, found.seed, found.ema) == (1, 4, 6, 0.5)
    assert config(*LEAST, "--set", "val_split=val", "--set", "short_sides=[3]").short_sides == (3,)
    assert config(*LEAST, "--val-split", "val", "--set", "val_split=null").val_split is None


def test_presets_are_printed_and_are_files_of_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(presets()) == ["ebseg-base", "ebseg-large", "own-data"]
    for name in presets():
        args = parsed(
            str(tmp_path / "run"), "--config", name, "--data", "d", "--batch", "8", "--print-config"
        )
        assert args.run(args) == 0
        printed = capsys.readouterr().out
        assert not (tmp_path / "run").exists()
        (tmp_path / "again.json").write_text(printed)
        again = config("--config", str(tmp_path / "again.json"))
        assert again == config("--config", name, "--data", "d", "--batch", "8")
    assert config("--config", "ebseg-large", "--data", "d").learning_rate == 8e-5
    own = config("--config", "own-data", "--data", "d")
    assert (own.keep_best, own.patience, own.val_split) == ("miou_all", 4, "val")
    assert own.init == str(order_of("base", registry=REGISTRY).directory)
    base = config("--config", "ebseg-base", "--data", "d")
    paper = TrainConfig(data="d", init=base.init, fresh_decoder=True, amp="float16", name=base.name)
    assert base == dataclasses.replace(paper, class_loss="process", group_by_shape=True)


def test_a_missing_start_is_told_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["--data", str(write_dataset(tmp_path)), "--init", str(tmp_path / "b")]
    assert ebseg.main(["train", str(run), *words]) == 2
    told = capsys.readouterr().err
    assert "is not a folder. `ebseg pull base` makes registry/ebseg-base/1" in told
    assert not run.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--variant", "tiny"), "field 'data' is missing"),
        (("--data", "d"), "give either variant or init"),
        ((*LEAST, "--set", "steps"), "--set needs FIELD=VALUE, got 'steps'"),
        ((*LEAST, "--set", "stepz=3"), "field 'stepz' is unknown"),
        ((*LEAST, "--set", "steps=many"), "steps must be of type int, got 'many'"),
        ((*LEAST, "--config", "nowhere.json"), "nowhere.json cannot be read: No such file"),
    ],
)
def test_mistakes_are_told(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        config(*argv)


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(micro_run(tmp_path, val_split="val").to_dict()))
    args = parsed(str(tmp_path / "run"), "--config", str(path), "--steps", "2")
    assert args.run(args) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"trained 2 steps in {tmp_path / 'run'}: miou_all ")
    args = parsed(str(tmp_path / "run"), "--config", str(path), "--steps", "2", "--resume", "--json")
    assert args.run(args) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 2
    assert printed["metrics"]["pictures"] == 6
    args = parsed(str(tmp_path / "other"), "--config", str(path), "--resume")
    with pytest.raises(TrainingError, match="holds no saved state to go on from"):
        args.run(args)


def test_no_class_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The normal case of own data: train, go on, evaluate and publish take a mean of no class for none."""
    write_dataset(tmp_path / "data", pictures=4, trained=[True] * 4)
    write_micro_checkpoint(tmp_path / "micro" / "1")
    path = tmp_path / "run.json"
    path.write_text(json.dumps(micro_run(tmp_path, val_split="val", steps=2).to_dict()))
    line = ["train", str(tmp_path / "run"), "--config", str(path)]
    for again in ([], ["--resume"]):  # a job that is started again when all is done
        assert ebseg.main([*line, *again]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("trained 2 steps")
        assert ", miou_new none\nnext: ebseg publish " in printed
    place = tmp_path / "registry" / "own"
    assert ebseg.main(["publish", str(tmp_path / "run"), str(place)]) == 0
    assert "not compared: miou_new" in capsys.readouterr().out
    assert ebseg.main([*line, "--steps", "3"]) == 0
    assert ebseg.main(["publish", str(tmp_path / "run"), str(place), "--margin", "100"]) == 0
    assert f"published {place}/2" in capsys.readouterr().out


def test_a_run_without_validation_is_measured_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(micro_run(tmp_path, steps=2).to_dict()))
    run, place = tmp_path / "run", tmp_path / "registry" / "own"
    assert ebseg.main(["train", str(run), "--config", str(path)]) == 0
    assert ebseg.main(["publish", str(run), str(place)]) == 1
    assert "none of miou_all, miou_trained, miou_new was measured" in capsys.readouterr().err
    assert ebseg.main(["evaluate", str(run / "checkpoint"), str(tmp_path / "data"), "--save"]) == 0
    saved = json.loads((run / "metrics.json").read_text())
    assert (saved["step"], saved["pictures"], saved["split"]) == (2, 6, "val")
    assert ebseg.main(["publish", str(run), str(place)]) == 0
    assert ebseg.main(["evaluate", str(run), str(tmp_path / "data"), "--limit", "2", "--save"]) == 0
    assert json.loads((run / "metrics.json").read_text())["pictures"] == 2
    capsys.readouterr()
    data = str(tmp_path / "data")
    assert ebseg.main(["evaluate", str(run), data, "--save", "--balance", "off"]) == 2
    assert "--save is for scores of the checkpoint as it is" in capsys.readouterr().err
    assert ebseg.main(["evaluate", str(tmp_path / "micro" / "1"), data, "--save"]) == 2
    assert "is not the checkpoint of a run, so that there is nowhere to save" in capsys.readouterr().err
