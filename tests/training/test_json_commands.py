"""`--json` of the commands that draw and pretrain."""

import json
from pathlib import Path
from typing import Any

import pytest

import ebseg
import training.encoders
import training.storybook.pretrain.backbone
import training.storybook.pretrain.clip
import training.storybook.pretrain.pictures


def test_storybook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "few"
    words = ["storybook", str(folder), "--train", "1", "--val", "1", "--seed", "3", "--jobs", "1"]
    assert ebseg.main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"folder": str(folder), "train": 1, "val": 1, "seed": 3}
    words[1] = str(tmp_path / "more")
    assert ebseg.main(words) == 0
    drawn, then = capsys.readouterr().out.splitlines()
    assert drawn == f"{words[1]}: 1 training scenes, 1 held-out scenes"
    assert then == f"next: ebseg evaluate model/pretrained/ebseg-tiny/1 {words[1]}"


def test_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What takes long is left out; tests/training/test_pretrain_*.py do that."""

    def nothing(*_: Any, **__: Any) -> float:
        return 0.25

    monkeypatch.setattr(training.storybook.pretrain.pictures, "pool", nothing)
    monkeypatch.setattr(training.storybook.pretrain.clip, "pretrain_clip", nothing)
    monkeypatch.setattr(training.storybook.pretrain.backbone, "pretrain_backbone", nothing)
    monkeypatch.setattr(training.encoders, "save_sam", nothing)
    out, data = tmp_path / "out.safetensors", tmp_path / "data"
    assert ebseg.main(["storybook", str(data), "--train", "1", "--val", "1", "--jobs", "1"]) == 0
    capsys.readouterr()
    assert ebseg.main(["pretrain", "clip", str(out), "--steps", "3", "--scenes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "steps": 3, "scenes": 4}
    backbone = ["pretrain", "backbone", str(out), "--data", str(data), "--steps", "2"]
    assert ebseg.main([*backbone, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "steps": 2, "mean_iou": 0.25}
    assert ebseg.main(backbone) == 0
    made, then = capsys.readouterr().out.splitlines()
    assert made == f"{out}: regions around given points, mean IoU 0.250"
    given = f"--clip CLIP.safetensors --sam {out} --out registry/NAME/1"
    assert then == f"next: ebseg encoders --variant tiny {given}"
    assert ebseg.main(["pretrain", "clip", str(out)]) == 0
    then = "next: ebseg pretrain backbone SAM.safetensors --data DATA\n"
    assert capsys.readouterr().out == f"made {out}\n{then}"
