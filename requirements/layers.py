"""The locks as layers, each on top of the one before, and what is in their files.

A lock names each package with its one version, a marker where not every platform needs it, and the hashes of
all its files. What a lower layer names, a higher one does not repeat.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent
LAYERS = ("serving", "training", "development")
# What each is made from: extras of the project; development has the group of that name beside them.
EXTRAS = {
    "serving": ("service", "s3", "gs", "azure", "otlp"),
    "training": ("service", "s3", "gs", "azure", "otlp", "training"),
    "development": ("dev",),
}
# The layers' files; PyTorch's is apart, as it is in images, and without CUDA it comes from elsewhere.
FILES = ("torch", *LAYERS)
MOTO, UV = "moto", "uv"  # locks of their own: an environment for moto, and the installer
# Built for CUDA or without it, under one version.
BUILT_BOTH_WAYS = ("torch", "torchvision")
# What a PyTorch for CUDA needs and one without does not.
_CUDA_ONLY = re.compile(r"^(nvidia|cuda)-|^triton$")


def path(name: str) -> Path:
    """The file of a lock."""
    return FOLDER / f"{name}.txt"


def files(layer: str) -> list[Path]:
    """The files of a layer and of all below it, the lowest first."""
    return [path(name) for name in FILES[: FILES.index(layer) + 1]]


def entries(lock: Path) -> dict[str, str]:
    """What a lock holds: for each line `name==version ; marker` all of its text, hashes included."""
    text = lock.read_text(encoding="utf-8")
    found = re.findall(r"^[^\s#].*(?:\n[ \t].*)*", text, re.MULTILINE)
    return {entry.split(" \\\n")[0]: entry for entry in found}


def name_of(line: str) -> str:
    """The package's name in a line of a lock."""
    return re.split(r"[=\s]", line, maxsplit=1)[0]


def version_of(line: str) -> str:
    """The version in a line of a lock."""
    return re.split(r"==|\s", line)[1]


def torch_version() -> tuple[str, str]:
    """The locked versions of torch and torchvision."""
    found = {name_of(line): version_of(line) for line in entries(path("torch"))}
    torch, vision = (found[name] for name in BUILT_BOTH_WAYS)
    return torch, vision


def is_cuda_only(name: str) -> bool:
    """Whether a package is of use only to a PyTorch that is built for CUDA."""
    return _CUDA_ONLY.search(name) is not None


def requirements(layer: str, *, pytorch: bool) -> str:
    """A requirements file of a layer and of all below it.

    Args:
        layer: its name.
        pytorch: with PyTorch as it is locked, CUDA's libraries included; else without.
    """
    wanted = [
        text
        for lock in files(layer)
        for line, text in entries(lock).items()
        if pytorch or not (name_of(line) in BUILT_BOTH_WAYS or is_cuda_only(name_of(line)))
    ]
    return "\n".join(wanted) + "\n"
