"""Versions to publish into the registry of a running service: good ones, and bad ones of each kind."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model.storage import checkpoint
from model.storage.manifest import FILES, GOLDEN, MANIFEST, WEIGHTS, FileEntry, Manifest, files_digest
from model.storage.packaged import packaged_checkpoint

NAME = "ebseg-tiny"
NOISE = 0.05  # relative, on the weights of the other good version: enough for other labels
SEED = 4
Tensors = dict[str, torch.Tensor]


def first_number() -> int:
    """Number of the packaged checkpoint."""
    return number_of(packaged_checkpoint())


def registry_with_first(folder: Path) -> Path:
    """A registry whose only version is the packaged checkpoint."""
    shutil.copytree(packaged_checkpoint(), folder / NAME / str(first_number()))
    return folder


def other_weights(folder: Path, number: int) -> Path:
    """A good version that answers otherwise, with the same text tower."""
    loaded = checkpoint.load(packaged_checkpoint())
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, value in loaded.ebseg.named_parameters():
            if not name.startswith("clip_text."):
                value.mul_(1 + NOISE * torch.randn(value.shape, generator=generator))
    checkpoint.save(
        loaded.ebseg,
        folder,
        checkpoint.Provenance(name=NAME, version=number, untrained=False),
        store_as=torch.float16,
    )
    return folder


def same_weights(folder: Path, number: int) -> Path:
    """A good version with the packaged weights."""
    return _changed(folder, number, lambda tensors: None)


def flipped_byte(folder: Path, number: int) -> Path:
    """One whose weights do not match their sha256."""
    _changed(folder, number, lambda tensors: None)
    path = folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return folder


def with_nan(folder: Path, number: int) -> Path:
    """One with a weight that is no number, and digests that match."""

    def change(tensors: Tensors) -> None:
        name = next(name for name in sorted(tensors) if tensors[name].is_floating_point())
        tensors[name].view(-1)[0] = float("nan")

    return _changed(folder, number, change)


def wrong_shape(folder: Path, number: int) -> Path:
    """One with a weight of another shape, and digests that match."""

    def change(tensors: Tensors) -> None:
        name = max(tensors, key=lambda name: tensors[name].dim())
        tensors[name] = tensors[name].flatten()

    return _changed(folder, number, change)


def wrong_results(folder: Path, number: int, other: Path) -> Path:
    """One whose weights do not compute what its golden file says."""
    shutil.copytree(packaged_checkpoint(), folder)
    shutil.copyfile(other / GOLDEN, folder / GOLDEN)
    _seal(folder, number)
    return folder


def number_of(folder: Path) -> int:
    """Number of a version."""
    return Manifest.from_json((folder / MANIFEST).read_bytes()).version


def publish(staged: Path, registry: Path) -> int:
    """Puts a staged version into its place, manifest last; returns its number."""
    number = number_of(staged)
    target = registry / NAME / str(number)
    target.mkdir()
    for name in FILES:
        shutil.copyfile(staged / name, target / name)
    shutil.copyfile(staged / MANIFEST, target / f".{MANIFEST}")
    os.rename(target / f".{MANIFEST}", target / MANIFEST)
    return number


def _changed(folder: Path, number: int, change: Callable[[Tensors], None]) -> Path:
    shutil.copytree(packaged_checkpoint(), folder)
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    _seal(folder, number)
    return folder


def _seal(folder: Path, number: int) -> None:
    old = Manifest.from_json((folder / MANIFEST).read_bytes())
    files = {}
    for name in FILES:
        data = (folder / name).read_bytes()
        files[name] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    new = dataclasses.replace(old, version=number, files=files, digest=files_digest(files))
    (folder / MANIFEST).write_text(new.to_json(), encoding="utf-8")
