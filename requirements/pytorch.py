"""Which PyTorch is installed: as locked, with CUDA's libraries, or built without, a tenth of the size."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from requirements import layers

AUTO, _, CUDA = CHOICES = ("auto", "cpu", "cuda")
TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # the index that has PyTorch without CUDA
PROBE_S = 5.0
# What NVIDIA's driver shows of itself, in a container and under WSL as well.
_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")
# Of the environment: its Python's tag, its platform, what torch it has.
_LOOK = """
import sys, sysconfig
from importlib import metadata
try:
    torch = metadata.version("torch")
except metadata.PackageNotFoundError:
    torch = ""
print("cp%d%d" % sys.version_info[:2], sysconfig.get_platform(), torch)
"""


@dataclass(frozen=True)
class Environment:
    """What is to be known of an environment here.

    Attributes:
        tag: of its Python in names of wheels, such as "cp311".
        platform: such as "linux-x86_64".
        torch: the version that is installed, or "".
    """

    tag: str
    platform: str
    torch: str

    @staticmethod
    def of(python: Path) -> Environment:
        """That of a Python."""
        done = subprocess.run([str(python), "-c", _LOOK], capture_output=True, text=True, check=True)
        tag, platform, torch = (*done.stdout.split(), "")[:3]
        return Environment(tag, platform, torch)


@dataclass(frozen=True)
class Choice:
    """What is installed, and why.

    Attributes:
        cuda: as locked; else built without CUDA.
        index: address of the index that has the other one; None where pip's own places have it.
        reason: for the user; empty where there is nothing to tell.
        replace: PyTorch is installed and has to be replaced by one of the same version.
    """

    cuda: bool
    index: str | None = None
    reason: str = ""
    replace: bool = False


def has_driver() -> bool:
    """Whether NVIDIA's driver is on this machine."""
    return shutil.which("nvidia-smi") is not None or any(Path(path).exists() for path in _DRIVER)


def choose(
    wanted: str,
    here: Environment,
    folders: Iterable[Path],
    index: str | None,
    driver: Callable[[], bool] = has_driver,
) -> Choice:
    """Which PyTorch to install.

    Args:
        wanted: one of `CHOICES`.
        here: the environment.
        folders: on this machine's disk that packages are taken from.
        index: address of the index with PyTorch without CUDA; None where none may be asked.
        driver: tells whether NVIDIA's driver is there.
    """
    version = layers.torch_version()[0]
    installed = here.torch if here.torch.split("+")[0] == version else ""
    without = installed.endswith("+cpu")
    if not here.platform.startswith("linux"):
        return Choice(cuda=True)  # PyTorch has CUDA's libraries on Linux only
    if wanted == AUTO and installed:
        return Choice(cuda=not without)
    if wanted == CUDA or (wanted == AUTO and driver()):
        return Choice(cuda=True, replace=without)
    if without:
        return Choice(cuda=False)
    offered = list(_wheels_on_disk(folders))
    if _has_all(offered, here):
        return Choice(cuda=False, reason=f"PyTorch {version} without CUDA, from this machine's disk")
    if wanted == AUTO and _has_all(offered, here, local=""):
        return Choice(cuda=True, reason=f"PyTorch {version} with CUDA: that one is on this machine's disk")
    problem = _missing(index, here) if index else "pip is configured to ask no index"
    if index and not problem:
        place = urlsplit(index).hostname or index
        return Choice(cuda=False, index=index, reason=f"PyTorch {version} without CUDA, from {place}")
    what = "keeping" if installed else "installing"
    size = "" if installed else ", 3 GB"
    return Choice(
        cuda=True,
        reason=f"{what} PyTorch {version} with CUDA{size}: none without CUDA is to be had, since {problem}",
    )


def requirements() -> str:
    """PyTorch without CUDA as requirements: the locked versions without hashes, since it has other files."""
    torch, vision = layers.torch_version()
    return f"torch=={torch}+cpu\ntorchvision=={vision}+cpu\n"


def _wheels_on_disk(folders: Iterable[Path]) -> Iterator[str]:
    """Names of wheels of torch and torchvision in folders of wheels and in indexes on disk."""
    for folder in folders:
        pages = [folder, *(folder / name / "index.html" for name in layers.BUILT_BOTH_WAYS)]
        for page in pages:
            if page.is_file():
                yield from _wheels(page.read_text(encoding="utf-8", errors="replace"))
        if folder.is_dir():
            yield from (path.name for path in folder.glob("torch*.whl"))


def _wheels(page: str) -> list[str]:
    """Names of wheels in a page of an index."""
    return [unquote(name).rpartition("/")[2] for name in re.findall(r'href="([^"#]+\.whl)', page)]


def _has_all(names: Iterable[str], here: Environment, local: str = "+cpu") -> bool:
    """Whether there are wheels of torch and torchvision for the environment, as locked, with a local part."""
    machine = here.platform.partition("-")[2]
    known = list(names)
    return all(
        any(
            name.startswith(f"{package}-{version}{local}-{here.tag}-") and name.endswith(f"_{machine}.whl")
            for name in known
        )
        for package, version in zip(layers.BUILT_BOTH_WAYS, layers.torch_version(), strict=True)
    )


def _missing(index: str, here: Environment) -> str:
    """Why the index is of no use, or ""; asked on a thread, since looking a name up knows no time limit."""
    names: list[str] = []
    problems: list[str] = []

    def ask() -> None:
        try:
            for package in layers.BUILT_BOTH_WAYS:
                with urllib.request.urlopen(f"{index.rstrip('/')}/{package}/", timeout=PROBE_S) as page:
                    names.extend(_wheels(page.read().decode("utf-8", "replace")))
        except (
            OSError,
            ValueError,
        ) as error:  # such as no such host, a broken certificate, no address at all
            problems.append(" ".join(str(getattr(error, "reason", error)).split()))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PROBE_S)
    if thread.is_alive():
        return f"{index} does not answer"
    if problems:
        return f"{index} cannot be reached ({problems[0]})"
    return "" if _has_all(names, here) else f"{index} does not have it for this Python and machine"
