"""TorchScript archives are read as torch reads them, and none of what they carry runs."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.encoder_files import model, openai_archive, refused
from training.encoders import load_clip
from training.torchscript import read_torchscript


class Harmful:
    """Unpickling it would make a file."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def with_tree(path: Path, tree: object) -> Path:
    """An archive whose tree of modules is another pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("clip/data.pkl", pickle.dumps(tree, protocol=2))
        file.writestr("clip/code/__torch__.py", "")
    return path


def test_no_code_runs(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = with_tree(tmp_path / "bad.pt", {"x": Harmful(str(victim))})
    message = refused(load_clip, model(), path)
    assert "is refused: it holds" in message
    assert "open" in message
    assert not victim.exists()


@pytest.mark.parametrize(("tree", "reason"), [([1], "holds a list, not a module"), ({}, "holds a dict")])
def test_tree_without_module(tree: object, reason: str, tmp_path: Path) -> None:
    assert reason in refused(load_clip, model(), with_tree(tmp_path / "bad.pt", tree))


@pytest.mark.parametrize("damage", ["storage", "tree", "nothing"])
def test_damaged_archive(damage: str, tmp_path: Path) -> None:
    whole = openai_archive(tmp_path / "whole.pt")
    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if damage == "storage" and name.endswith("/data/0"):
                data = data[:-2]
            if damage == "tree" and name.endswith("/data.pkl"):
                data = data[: len(data) // 2]
            if damage != "nothing" or not name.endswith("/data.pkl"):
                target.writestr(name, data)
    words = {"storage": "bytes for", "tree": "damaged", "nothing": "no data.pkl"}
    assert words[damage] in refused(load_clip, model(), path)


def test_archive_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    path = openai_archive(tmp_path / "clip.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        wanted = torch.jit.load(path).state_dict()
    found = read_torchscript(path)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
