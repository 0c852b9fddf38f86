"""State dicts in torch files and pickles, for the sake of other people's weights.

The rest of the project never touches one: `ebseg import`, `ebseg pull`, `ebseg export` and `ebseg encoders`
do. Nothing in a file is run, see pickle_machine.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.released.pickle_machine import kind, printable
from model.released.stored_tensors import Place, Storage, StoredArray, StoredTensor, to_tensor
from model.released.torch_archive import read_archive
from model.storage.files import refuse_existing, replacing

WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which files put their state dict
DEEPEST = 3  # of those within each other
LONGEST_NAME = 500  # characters; the official ones have a hundred
REMARKS = ("__author__", "matching_heuristics")  # detectron2's, beside the weights


@dataclass(frozen=True, kw_only=True, slots=True)
class StateDict:
    """A state dict.

    Attributes:
        tensors: by name, mapped from the file.
        others: {name: what it is} of what lies between them and is no tensor.
    """

    tensors: dict[str, Tensor]
    others: dict[str, str] = field(default_factory=dict)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a state dict; they stay mapped from the file.

    Raises:
        CheckpointError: see `read_entries`, or there are other things than tensors between them.
    """
    found = read_entries(path)
    for name, what in found.others.items():
        raise CheckpointError(f"{path} holds {name}, which is {what} and no tensor")
    return found.tensors


def read_entries(path: Path) -> StateDict:
    """Reads a state dict that is the file's content, or lies in it under one of `WRAPPERS`.

    What lies beside it, an optimizer's state or objects of any class, does not matter and is not run.

    Raises:
        CheckpointError: no such file, none that holds a state dict, or damaged; the message names the file.
    """
    archive = read_archive(path)
    try:
        return _entries(archive.content, archive.place_of)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from None


def _entries(content: Any, place_of: Callable[[Storage], Place]) -> StateDict:
    tensors: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, value in _unwrapped(content).items():
        if not isinstance(name, str):
            raise CheckpointError(f"holds a state dict with {kind(name)} among the names of its tensors")
        if len(name) > LONGEST_NAME:
            raise CheckpointError(f"holds a state dict with a name of {len(name):,} characters")
        shown = name if name.isprintable() else ascii(name)  # messages and tables hold it
        if isinstance(value, StoredTensor | StoredArray):
            try:
                tensors[shown] = to_tensor(value, place_of)
            except CheckpointError as error:
                raise CheckpointError(f"is not sound: tensor {printable(name)} {error}") from None
        elif name not in REMARKS:
            others[shown] = f"of type {kind(value)}"
    return StateDict(tensors=tensors, others=others)


def _unwrapped(content: Any) -> dict[Any, Any]:
    """The state dict in a file's content: what lies under a wrapper's key, or else the content itself."""
    where = ""
    for _ in range(DEEPEST + 1):
        if not isinstance(content, dict):
            raise CheckpointError(
                f"must hold a state dict{where or ', alone or under model'}, and holds {kind(content)}"
            )
        named = [key for key in WRAPPERS if key in content]
        inside = [key for key in named if isinstance(content[key], dict)]
        if len(inside) > 1:
            raise CheckpointError(f"holds weights in several places{where}: under {' and '.join(inside)}")
        if not inside and any(isinstance(value, StoredTensor | StoredArray) for value in content.values()):
            return content
        if not named:
            keys = ", ".join(printable(key) if isinstance(key, str) else kind(key) for key in [*content][:5])
            raise CheckpointError(f"holds no tensors{where}, only {keys or 'an empty dictionary'}")
        key = (inside or named)[0]
        content, where = content[key], f" under {key}"
    raise CheckpointError(f"holds wrappers in wrappers, more than {DEEPEST} deep")


def write_state_dict(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes {"model": tensors}; the file appears whole or not at all.

    Raises:
        CheckpointError: the file exists.
        OSError: the disk did not take it.
    """
    refuse_existing(path)
    with replacing(path) as partial:
        with open(partial, "wb") as file:
            torch.save({"model": dict(tensors)}, file)
        refuse_existing(path)
