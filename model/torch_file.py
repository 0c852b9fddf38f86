"""Torch files, for the sake of other people's weights: `ebseg import`, `ebseg export`, `ebseg encoders`.

The rest of the project never touches one. Reading runs torch's restricted unpickler, which builds
tensors and plain containers and calls nothing.
"""

import os
import pickle
import re
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the tensors under "model" of a torch file; they stay mapped from it.

    Raises:
        CheckpointError: no such file, no torch file, truncated, or other things inside than tensors.
    """
    content = read_content(path)
    if not isinstance(content, dict) or "model" not in content:
        keys = f" with {list(content)[:5]}" if isinstance(content, dict) else ""
        raise CheckpointError(
            f'{path} must hold {{"model": state_dict}}, not a {type(content).__name__}{keys}'
        )
    return tensors_of(content["model"], f'{path}: "model"')


def tensors_of(content: Any, what: str) -> dict[str, Tensor]:
    """The content as {name: tensor}.

    Raises:
        CheckpointError: it is something else; the message begins with `what`.
    """
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{what} must be a state_dict, found: {type(content).__name__}")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{what} holds {name!r}, a {type(tensor).__name__} and no tensor")
    return dict(content)


def read_content(path: Path) -> Any:
    """Reads whatever a torch file holds of tensors and plain containers; tensors stay mapped from it.

    Raises:
        CheckpointError: no such file, no torch file, truncated, or other things inside.
    """
    try:
        with open(path, "rb") as file:
            begins_as_zip = file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    if not zipfile.is_zipfile(path):
        if begins_as_zip:
            raise CheckpointError(f"{path} is damaged: the end of the file is missing, copy it again")
        raise CheckpointError(f"{path} is not a torch file (of torch 1.6 or later)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is refused: {_refusal(str(error))}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    except Exception as error:
        # torch raises whatever its parser stumbles over; its first line is the one that tells
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{path} is not a torch file, or is damaged: {reason}") from None


def refuse_existing(path: Path) -> None:
    """Raises CheckpointError if there is something at `path`, or no folder to put it in."""
    if os.path.lexists(path):
        raise CheckpointError(f"{path} exists already, choose another name or remove it first")
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f"{path.absolute().parent} is not a folder, make it first")


def write_state_dict(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes {"model": tensors}; the file appears whole or not at all.

    Raises:
        CheckpointError: the file exists.
        OSError: the disk did not take it.
    """
    refuse_existing(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb") as file:
            torch.save({"model": dict(tensors)}, file)
            file.flush()
            os.fsync(file.fileno())
        refuse_existing(path)
        os.rename(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _refusal(message: str) -> str:
    """Torch's own message counsels loading the file unsafely; only the culprit's name is of use."""
    culprit = re.search(r"GLOBAL ([\w.]+)", message)
    if culprit:
        return f"it holds {culprit.group(1)}, and only tensors and plain containers are loaded from a file"
    return "it holds more than tensors and plain containers, and nothing else is loaded from a file"
