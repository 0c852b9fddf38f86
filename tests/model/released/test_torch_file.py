"""Torch files: tensors come in and nothing else does, and whatever is wrong is reported in a line."""

import argparse
import datetime
import os
import pickle
import tracemalloc
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.errors import CheckpointError
from model.released.torch_file import read_state_dict, write_state_dict

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


class Malicious:
    """Calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, ("EBSEG_TEST_UNPICKLED", "1")


def write(path: Path, content: object, kind: str) -> None:
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


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


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, this is text", b"\x80", b"\x89PNG\r\n" * 9])
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


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    ("value", "named"),
    [(Malicious(), "posix.putenv"), (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear")],
)
def test_foreign_objects_among_the_tensors_are_named(
    tmp_path: Path, kind: str, value: object, named: str
) -> None:
    path = tmp_path / "weights.pth"
    write(path, {"model": {"a": value, "b": torch.zeros(2)} if kind != "pickle" else {"a": value}}, kind)
    message = refused(path)
    assert named in message or kind == "pickle"
    assert "EBSEG_TEST_UNPICKLED" not in os.environ


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_foreign_objects_beside_the_model_do_not_matter(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    beside = {
        "trainer": Malicious(),
        "args": argparse.Namespace(lr=1e-4, nested=[argparse.Namespace()]),
        "made": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "counter": Counter("aab"),
        "by_name": defaultdict(list, {"a": [1]}),
        "set": {1, 2},
        "path": Path("x"),
        "module": torch.nn.Linear(2, 2),
        "array": np.array([object()]),
        "complex": torch.zeros(2, dtype=torch.complex64),
    }
    write(path, {**beside, "model": TENSORS, "optimizer": {"state": {0: torch.zeros(2)}}}, kind)
    found = read_state_dict(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert "EBSEG_TEST_UNPICKLED" not in os.environ


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_types_and_views(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    base = torch.arange(24).reshape(4, 6).to(dtype)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "row": base[2],
        "strided": base[::2, 1::2],
        "scalar": base[1, 1],
        "none": base[:0],
        "parameter": torch.nn.Parameter(base.clone(), requires_grad=dtype.is_floating_point),
    }
    path = tmp_path / "weights.pth"
    write(path, OrderedDict(tensors), kind)
    found = read_state_dict(path)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], tensor.detach()), name


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ">f4", "int64", "uint8", "bool"])
@pytest.mark.parametrize("side", [3, 64])  # below and above the size from which numbers stay in the file
def test_arrays(tmp_path: Path, protocol: int, dtype: str, side: int) -> None:
    array = np.arange(side * side).reshape(side, side).astype(dtype)
    arrays = {"c": array, "fortran": np.asfortranarray(array), "scalar": array[1, 1], "none": array[:0]}
    path = tmp_path / "weights.pkl"
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_state_dict(path)
    assert list(found) == list(arrays)
    for name, wanted in arrays.items():
        assert found[name].shape == wanted.shape
        assert np.array_equal(found[name].numpy(), wanted), name


def test_arrays_in_a_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": np.arange(5000.0), "b": np.float32(3)}}, path)
    found = read_state_dict(path)
    assert torch.equal(found["a"], torch.arange(5000.0, dtype=torch.float64))
    assert found["b"].item() == 3


def test_tensors_are_views_of_the_file(tmp_path: Path) -> None:
    """Neither do they need memory of their own, nor does writing to one change the file."""
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.zeros(1000, 1000)}}, path)
    before = path.read_bytes()
    tracemalloc.start()
    found = read_state_dict(path)["a"]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    found.fill_(7)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "holds no tensors, only an empty dictionary"),
        ({"iteration": 3, "lr": 0.1}, "holds no tensors, only iteration, lr"),
        ([1, 2], "must hold a state dict, alone or under model, and holds list"),
        (torch.zeros(2), "and holds StoredTensor"),
        ({"model": [1]}, "must hold a state dict under model, and holds list"),
        ({"model": {}}, "holds no tensors under model, only an empty dictionary"),
        ({"model": {"a": torch.zeros(1), "b": 3}}, "holds b, which is of type int and no tensor"),
        ({"model": {3: torch.zeros(1)}}, "int among the names"),
        ({"model": torch.nn.Linear(1, 1)}, "holds torch.nn.modules.linear.Linear"),
        ({"model": TENSORS, "state_dict": TENSORS}, "in several places: under model and state_dict"),
        ({"model": "ViT-B/16", "a": torch.zeros(1)}, "holds model, which is of type str"),
        ({"a": torch.zeros(2).to_sparse(), "b": torch.zeros(1)}, "holds a, which is of type"),
    ],
)
def test_other_content(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert reason in refused(path)


@pytest.mark.parametrize("wrappers", [(), ("model",), ("state_dict",), ("model", "state_dict")])
def test_wrappers(tmp_path: Path, wrappers: tuple[str, ...]) -> None:
    path = tmp_path / "weights.pth"
    content: dict[str, Any] = dict(TENSORS)
    for wrapper in reversed(wrappers):
        content = {"epoch": 3, "random_state": torch.zeros(2), wrapper: content}
    torch.save(content, path)
    assert list(read_state_dict(path)) == list(TENSORS)


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        write_state_dict(path, TENSORS)
    assert path.read_text() == "mine"
    with pytest.raises(CheckpointError, match="is not a folder"):
        write_state_dict(tmp_path / "absent" / "weights.pth", TENSORS)


@pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
def test_a_crash_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(step, crash)
    tensors: dict[str, Tensor] = dict(TENSORS)
    with pytest.raises(KeyboardInterrupt):
        write_state_dict(tmp_path / "weights.pth", tensors)
    assert list(tmp_path.iterdir()) == []
