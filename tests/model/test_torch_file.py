"""Torch files: tensors come in and nothing else does, and whatever is wrong is told in a line."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.errors import CheckpointError
from model.torch_file import read_state_dict, write_state_dict

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Malicious:
    """Calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, ("EBSEG_TEST_UNPICKLED", "1")


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write_state_dict(path, TENSORS)
    found = read_state_dict(path)
    assert list(found) == ["a", "b"]
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pth"]


def test_other_entries_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": TENSORS, "optimizer": {"state": {0: torch.zeros(2)}}, "iteration": 119_999}, path)
    assert list(read_state_dict(path)) == ["a", "b"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.zeros(10_000)}}, path)
    os.truncate(path, int(share * path.stat().st_size))
    assert "the end of the file is missing" in refused(path)


def test_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": TENSORS}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"torch", b"t\x00rch"))
    refused(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, this is text", b"\x80\x04N.", b"\x89PNG\r\n" * 9])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "is not a torch file" in refused(path)


def test_other_zip(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    assert "is not a torch file, or is damaged" in refused(path)


def test_no_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "absent.pth")
    assert "cannot be read: Is a directory" in refused(tmp_path)


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (Malicious(), r"posix.putenv"),
        (np.ones(3), "multiarray._reconstruct"),
        (torch.nn.Linear(2, 2), "Linear"),
    ],
)
def test_nothing_but_tensors_is_built(tmp_path: Path, value: object, culprit: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": value}}, path)
    message = refused(path)
    assert culprit in message
    assert "only tensors and plain containers" in message
    assert "weights_only" not in message  # torch's counsel to switch the protection off
    assert "EBSEG_TEST_UNPICKLED" not in os.environ


def test_bare_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"model": {"a": Malicious()}}))
    assert "is not a torch file" in refused(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TENSORS, "not a dict with ['a', 'b']"),
        ({}, "not a dict with []"),
        ([1, 2], "not a list"),
        (torch.zeros(2), "not a Tensor"),
        ({"model": [1]}, '"model" must be a state_dict, found: list'),
        ({"model": {}}, '"model" must be a state_dict'),
        ({"model": {"a": 3}}, "\"model\" holds 'a', a int and no tensor"),
        ({"model": {3: torch.zeros(1)}}, '"model" holds 3, a Tensor'),
    ],
)
def test_other_content(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert reason in refused(path)


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        write_state_dict(path, TENSORS)
    assert path.read_text() == "mine"
    with pytest.raises(CheckpointError, match="is not a folder"):
        write_state_dict(tmp_path / "absent" / "weights.pth", TENSORS)


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.rename"])
def test_a_crash_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, crash)
    tensors: dict[str, Tensor] = dict(TENSORS)
    with pytest.raises(KeyboardInterrupt):
        write_state_dict(tmp_path / "weights.pth", tensors)
    assert list(tmp_path.iterdir()) == []
