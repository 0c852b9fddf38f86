"""Small checkpoint folders, and ways to damage them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from model.network.build import build
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.storage.checkpoint import Provenance, save
from model.storage.files import sha256
from model.storage.manifest import FILES, MANIFEST, FileEntry, Manifest, files_digest
from model.vocabulary.classes import TrainingClasses

CLASSES = TrainingClasses.of(["sky", "tree"])
BIG_TENSOR = "clip_text.token_embedding.weight"


def make(seed: int = 0, *, reads: bool = False) -> EBSeg:
    """The tiny model with next to no text tower, so that a folder takes milliseconds.

    Args:
        seed: of the weights.
        reads: whether the tower has all tokens, and so can read any text.
    """
    tiny = VARIANTS["tiny"]
    tokens = tiny.clip.text_vocabulary if reads else 16
    clip = dataclasses.replace(tiny.clip, text_vocabulary=tokens, text_layers=1)
    return build(dataclasses.replace(tiny, clip=clip), CLASSES, seed=seed).eval()


def write(ebseg: EBSeg, folder: Path, **others: Any) -> Manifest:
    defaults: dict[str, Any] = {"name": "ebseg-tiny", "version": 1, "untrained": False}
    options = {name: others.pop(name) for name in ("store_as", "progress") if name in others}
    return save(ebseg, folder, Provenance(**defaults | others), **options)


def put(path: Path, content: bytes | str) -> None:
    path.unlink()
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def reseal(folder: Path, **changes: Any) -> None:
    """Makes the manifest agree with the files, as a damage before saving would have."""
    old = Manifest.from_json((folder / MANIFEST).read_text())
    files = {
        name: FileEntry(sha256=sha256(folder / name), bytes=(folder / name).stat().st_size) for name in FILES
    }
    new = dataclasses.replace(old, files=files, digest=files_digest(files), **changes)
    put(folder / MANIFEST, new.to_json())


def edit_tensors(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    edit(tensors)
    put(path, safetensors.torch.save(tensors))
