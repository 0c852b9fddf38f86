"""The model's commands, run through `ebseg.main` as a user runs them."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ebseg
import model.commands.places
from model.confidence.card import ANY_NOUN
from model.network.build import build
from model.network.config import VARIANTS
from model.official import load_official, to_official
from model.released.torch_file import read_state_dict, write_state_dict
from model.storage.checkpoint import check_golden, load
from model.vocabulary.classes import TrainingClasses


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Run]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    def command(*args: object) -> Run:
        code = ebseg.main([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Run(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the official code writes it, of the tiny variant."""
    path = tmp_path_factory.mktemp("released") / "EBSeg_tiny.pth"
    write_state_dict(path, to_official(build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=3)))
    return path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "ebseg-tiny" / "7"
    assert ebseg.main(["init", "--variant", "tiny", "--seed", "5", "--out", str(folder)]) == 0
    return folder


def one_line(run: Run) -> str:
    """What a failed command said: one line on standard error and nothing on standard output."""
    assert run.out == ""
    assert run.err.startswith("ebseg: error: ")
    assert run.err.count("\n") == 1
    return run.err


def test_variants_are_the_configurations() -> None:
    assert set(model.commands.places.VARIANTS) == set(VARIANTS)
    with_swin = {name for name, config in VARIANTS.items() if config.swin is not None}
    assert set(model.commands.places.SWIN_VARIANTS) == with_swin


def test_init_says_untrained(run: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = run("init", "--variant", "tiny", "--seed", 5, "--out", tmp_path / "ebseg-tiny" / "2")
    assert found.code == 0
    assert "untrained" in found.out
    assert ["untrained" in message for message in caplog.messages] == [True]
    manifest = load(tmp_path / "ebseg-tiny" / "2").manifest
    assert (manifest.name, manifest.version, manifest.untrained) == ("ebseg-tiny", 2, True)
    assert manifest.training == {"initialised_with_seed": 5}
    assert manifest.digest in found.out


def test_init_depends_on_the_seed_alone(run: Command, untrained: Path, tmp_path: Path) -> None:
    digest = load(untrained).manifest.digest
    again = run("init", "--variant", "tiny", "--seed", 5, "--out", tmp_path / "a" / "1", "--json")
    other = run("init", "--variant", "tiny", "--seed", 6, "--out", tmp_path / "b" / "1", "--json")
    assert again.json["digest"] == digest
    assert other.json["digest"] != digest
    assert again.json["untrained"] is True


def test_import_takes_every_tensor(run: Command, released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ebseg-tiny" / "1"
    found = run("import", released, "--variant", "tiny", "--out", folder, "--json")
    assert (found.code, found.err) == (0, "")
    loaded = load(folder)
    assert found.json["digest"] == loaded.manifest.digest
    assert (loaded.manifest.name, loaded.manifest.version) == ("ebseg-tiny", 1)
    assert loaded.manifest.untrained is False
    assert loaded.manifest.license == "MIT AND Apache-2.0"
    assert loaded.manifest.card is not None
    assert loaded.manifest.card.words == ANY_NOUN
    assert loaded.manifest.training["source"] == "EBSeg_tiny.pth"
    assert len(loaded.manifest.training["sha256"]) == 64
    expected = load_official(read_state_dict(released), "tiny").state_dict()
    tensors = loaded.ebseg.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())
    assert check_golden(loaded) <= 1e-6


def test_import_and_export_are_inverse(run: Command, released: Path, tmp_path: Path) -> None:
    assert run("import", released, "--variant", "tiny", "--out", tmp_path / "m" / "1").code == 0
    exported = tmp_path / "exported.pth"
    found = run("export", tmp_path / "m" / "1", "--official", exported)
    assert found.code == 0
    before, after = read_state_dict(released), read_state_dict(exported)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    again = run("export", tmp_path / "m" / "1", "--official", exported)
    assert again.code == 2
    assert f"{exported} exists already" in one_line(again)


def _without(tensors: dict[str, Tensor]) -> None:
    del tensors["sem_seg_head.predictor.level_embed.weight"]


def _with_more(tensors: dict[str, Tensor]) -> None:
    tensors["module.extra"] = torch.zeros(1)


def _misshapen(tensors: dict[str, Tensor]) -> None:
    tensors["ov_classifier.bg_embed"] = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_without, "sem_seg_head.predictor.level_embed.weight"),
        (_with_more, "module.extra"),
        (_misshapen, "ov_classifier.bg_embed"),
    ],
)
def test_import_names_what_does_not_fit(
    run: Command, released: Path, tmp_path: Path, edit: Callable[[dict[str, Tensor]], None], named: str
) -> None:
    tensors = read_state_dict(released)
    edit(tensors)
    path = tmp_path / "edited.pth"
    write_state_dict(path, tensors)
    found = run("import", path, "--variant", "tiny", "--out", tmp_path / "m" / "1")
    assert found.code == 2
    assert named in one_line(found)
    assert str(path) in found.err
    assert not (tmp_path / "m").exists()


def test_import_takes_training_classes(run: Command, tmp_path: Path) -> None:
    classes = TrainingClasses.of(["sky", "tree"])
    path, out = tmp_path / "two.pth", tmp_path / "m" / "1"
    write_state_dict(path, to_official(build(VARIANTS["tiny"], classes, seed=0)))
    (tmp_path / "classes.json").write_text(json.dumps(classes.to_json()))
    args = ("import", path, "--variant", "tiny", "--out", out, "--training-classes")
    assert run(*args, tmp_path / "classes.json").code == 0
    assert load(out).ebseg.training_classes == classes
    for name, content in (("broken.json", "{"), ("other.json", "{}")):
        (tmp_path / name).write_text(content)
        found = run(*args[:4], "--out", tmp_path / "m" / "2", args[-1], tmp_path / name)
        assert found.code == 2
        one_line(found)
    found = run(*args[:4], "--out", tmp_path / "m" / "2", args[-1], tmp_path / "absent.json")
    assert found.code == 2
    assert "absent.json" in one_line(found)


def test_import_refuses_other_files(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("text")
    found = run("import", path, "--variant", "tiny", "--out", tmp_path / "m" / "1")
    assert found.code == 2
    assert f"{path} is not a torch file" in one_line(found)


@pytest.mark.parametrize("out", ["1", "m/one", "m/0", "m/01", "m/1.5", "m/-1", "a b/1", "m/\u0663"])
def test_out_must_end_in_name_and_version(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "not a name").mkdir()
    monkeypatch.chdir(tmp_path / "not a name")
    found = run("init", "--variant", "tiny", "--out", out)
    assert found.code == 2
    one_line(found)
    assert list((tmp_path / "not a name").iterdir()) == []


def test_out_is_never_overwritten(run: Command, untrained: Path, released: Path) -> None:
    before = load(untrained).manifest
    for args in (("init",), ("import", released)):
        found = run(*args, "--variant", "tiny", "--out", untrained)
        assert found.code == 2
        assert f"{untrained} exists already" in found.err
    assert load(untrained).manifest == before


def test_inspect_prints_a_table(run: Command, untrained: Path) -> None:
    found = run("inspect", untrained)
    manifest = load(untrained).manifest
    assert found.code == 0
    rows = [" ".join(line.split()) for line in found.out.splitlines()]
    assert rows[:5] == [
        "name ebseg-tiny",
        "version 7",
        "variant tiny",
        "state untrained: its masks mean nothing",
        f"digest {manifest.digest}",
    ]
    assert f"model.safetensors {manifest.files['model.safetensors'].bytes / 2**20:.1f} MiB" in rows
    assert "licence MIT" in rows
    assert "domain none: the weights are random, the masks mean nothing" in rows
    assert "threshold none, not measured: there is nothing to measure" in rows
    assert "training classes 171" in rows
    assert "image size short side 192, long side at most 768" in rows
    assert "balance geometric" in rows
    assert "trained classes supervised 0.21, mask attention 0.7, frozen 0.09" in rows
    assert "metrics none" in rows
    assert rows[-1] == f"next ebseg serve --checkpoint {untrained}"
    assert len(rows) < 40


def test_inspect_as_json(run: Command, untrained: Path) -> None:
    found = run("inspect", untrained, "--json")
    parameters = list(load(untrained).ebseg.parameters())
    assert found.code == 0
    assert found.json["parameters"] == {
        "total": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    }
    assert 0 < found.json["parameters"]["trained"] < found.json["parameters"]["total"]
    assert found.json["untrained"] is True
    assert found.json["training_classes"] == 171
    assert found.json["license"] == "MIT"
    assert found.json["card"]["threshold"] is None
    assert found.json["config"]["short_side"] == 192


def test_inspect_refuses_what_is_damaged(run: Command, untrained: Path, tmp_path: Path) -> None:
    for path in untrained.iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_bytes((untrained / "config.json").read_bytes().replace(b"8", b"9"))
    found = run("inspect", tmp_path)
    assert found.code == 2
    assert "config.json does not match its sha256" in one_line(found)
    assert "has no manifest.json" in one_line(run("inspect", tmp_path.parent))
    assert "is not a folder" in one_line(run("inspect", tmp_path / "absent"))


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", str(2**63)])
def test_seed_is_checked(run: Command, tmp_path: Path, seed: str) -> None:
    found = run("init", "--variant", "tiny", "--seed", seed, "--out", tmp_path / "m" / "1")
    assert found.code == 2
    assert "--seed" in one_line(found)


@pytest.mark.parametrize("command", ["import", "inspect", "init", "export"])
def test_help_has_examples(run: Command, command: str) -> None:
    found = run(command, "--help")
    assert (found.code, found.err) == (0, "")
    assert f"Examples:\n  ebseg {command} " in found.out
