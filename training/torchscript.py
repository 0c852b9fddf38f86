"""Tensors of a TorchScript archive, without running any of it.

OpenAI publishes CLIP as TorchScript: a zip file with code, a pickled tree of modules and the tensors'
bytes. `torch.jit.load` would compile and run that code. Here the tree is unpickled with an unpickler
that knows empty modules, tensors and plain containers and refuses all else, and the code is left alone.
"""

import collections
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import CheckpointError

DEEPEST = 32  # modules inside modules

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a torch file that carries code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Reads parameters and buffers by the names that `state_dict` would give them.

    Raises:
        CheckpointError: no such file, no TorchScript archive, damaged, or things inside that are neither
            modules nor tensors nor plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tree = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if tree is None:
                raise CheckpointError(f"{path} is not a TorchScript archive: it has no data.pkl")
            with archive.open(tree) as file:
                root = _Unpickler(file, archive, tree.removesuffix("data.pkl")).load()
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:
        # a damaged pickle makes the parser stumble in any way
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path} is not a TorchScript archive, or is damaged: {type(error).__name__} {reason}"
        ) from None
    if not isinstance(root, _Module):
        raise CheckpointError(f"{path} holds a {type(root).__name__}, not a module")
    return dict(_tensors(root, "", 0))


class _Module:
    """What is left of a TorchScript module: its attributes."""


class _Unpickler(pickle.Unpickler):
    """Builds modules without code, tensors and plain containers; calls nothing else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        harmless: dict[str, Callable[..., Any]] = {
            "torch._utils._rebuild_tensor_v2": _view,
            "torch.jit._pickle.restore_type_tag": _first,
            "collections.OrderedDict": collections.OrderedDict,
        }
        for kind in ("int", "double", "bool", "tensor"):
            harmless[f"torch.jit._pickle.build_{kind}list"] = _first
        if f"{module}.{name}" not in harmless:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only modules and tensors are read")
        return harmless[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        """One storage, as a flat tensor."""
        _, dtype, key, _, count = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._folder}data/{key}"))
            if not count or len(data) != count * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes for {count} numbers")
            self._storages[key] = torch.frombuffer(data, dtype=dtype)
        return self._storages[key]


def _view(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: _Module, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > DEEPEST:
        raise CheckpointError(f"modules lie more than {DEEPEST} deep, at {prefix}")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)
