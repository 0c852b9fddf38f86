"""Makes the environment in .venv, with the packages of one layer of the locks and the project itself.

    python3 -m requirements.install serving
    python3 -m requirements.install development --torch cpu
    python3 -m requirements.install training --list

Nothing is resolved: what is installed is what the locks say. uv does it, in a quarter of the time that pip
takes, and is fetched into the environment where it is not on the PATH; where it is not to be had either, pip
does it. Both take packages from where pip is configured to. Called again after it was cut off, it goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from requirements import layers, pytorch
from requirements.errors import SetupError
from requirements.installers import Installer, Pip, Uv, find_uv

OLDEST = (3, 11)
UNUSABLE = 2
PROJECTS = ("client", ".")  # installed from this checkout, so that a change of their sources shows at once


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 -m requirements.install", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("layer", choices=layers.LAYERS, help="what is installed, with the layers below it")
    parser.add_argument("--venv", type=Path, default=layers.ROOT / ".venv", help="folder of the environment")
    parser.add_argument(
        "--torch",
        choices=pytorch.CHOICES,
        default=pytorch.AUTO,
        help="PyTorch with CUDA, or without where it can be had; auto: without if there is no NVIDIA driver",
    )
    parser.add_argument("--torch-cpu", default=pytorch.TORCH_CPU, help="index that has PyTorch without CUDA")
    parser.add_argument(
        "--with", dest="tool", choices=("auto", "uv", "pip"), default="auto", help="what installs"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the requirements but PyTorch's, install nothing"
    )
    options = parser.parse_args(argv)
    try:
        if options.list:
            print(layers.requirements(options.layer, pytorch=False), end="")
        else:
            set_up(options)
    except SetupError as error:
        print(f"set-up: error: {error}", file=sys.stderr)
        return UNUSABLE
    except OSError as error:  # such as a full disk
        print(f"set-up: error: {error.filename or options.venv}: {error.strerror}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("set-up: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def set_up(options: argparse.Namespace) -> None:
    """Makes the environment, or goes on with it."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"Python 3.11 or newer is needed, and this is {found}; `make setup PYTHON=python3.12` names one"
        )
    venv = options.venv.resolve()
    with alone(venv):
        python = environment(venv)
        installer = choose_installer(options.tool, venv, python)
        install_layer(installer, python, options)
        installer.install_projects(python, [layers.ROOT / name for name in PROJECTS])
        if options.layer == "development":
            moto = environment(venv / layers.MOTO, bare=True)
            installer.install(moto, layers.path(layers.MOTO).read_text(encoding="utf-8"))


def install_layer(installer: Installer, python: Path, options: argparse.Namespace) -> None:
    """PyTorch of the right kind, and the rest."""
    here = pytorch.Environment.of(python)
    index = None if installer.offline else options.torch_cpu
    choice = pytorch.choose(options.torch, here, installer.folders, index)
    if choice.reason:
        print(choice.reason, file=sys.stderr, flush=True)
    if not choice.cuda:
        installer.install(python, pytorch.requirements(), index=choice.index)
        installer.remove(python, filter(layers.is_cuda_only, installed(python)))
    elif choice.replace:
        installer.remove(python, layers.BUILT_BOTH_WAYS)
    installer.install(python, layers.requirements(options.layer, pytorch=choice.cuda))


def installed(python: Path) -> list[str]:
    """Names of the packages of an environment."""
    look = (
        "from importlib import metadata; print(*{found.name.lower() for found in metadata.distributions()})"
    )
    done = subprocess.run([str(python), "-c", look], capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def environment(venv: Path, *, bare: bool = False) -> Path:
    """The Python of an environment, which is made, or mended, where it does not run.

    Args:
        venv: its folder.
        bare: it needs no pip of its own.
    """
    python = venv / "bin" / "python"
    check = "import sys" if bare else "import pip"
    if (
        python.exists()
        and not subprocess.run([str(python), "-c", check], capture_output=True, check=False).returncode
    ):
        return python
    command = [sys.executable, "-m", "venv", *(["--without-pip"] if bare else []), str(venv)]
    if python.is_symlink() and not python.exists():  # its Python has gone
        command.insert(3, "--clear")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = " ".join((done.stdout + done.stderr).split())
        if "ensurepip" in output:
            raise SetupError(
                f"{sys.executable} has no venv; Debian's package is python3-venv (apt install python3-venv)"
            )
        raise SetupError(f"{venv} cannot be made: {output[-300:]}")
    return python


def choose_installer(tool: str, venv: Path, python: Path) -> Installer:
    """uv where it is to be had, else pip.

    Raises:
        SetupError: uv was asked for, and is not to be had.
    """
    if tool == "pip":
        return Pip(python)
    uv, problem = find_uv(python)
    if uv is not None:
        return Uv(uv, python, spare_cache=venv / "uv-cache")
    if tool == "uv":
        raise SetupError(f"uv is not to be had: {problem}")
    print(f"pip installs, which takes longer than uv would: {problem}", file=sys.stderr, flush=True)
    return Pip(python)


@contextlib.contextmanager
def alone(venv: Path) -> Iterator[None]:
    """Waits until no other set-up works on the environment."""
    import fcntl  # not on Windows, where the message about it would be the import's

    try:
        venv.mkdir(parents=True, exist_ok=True)
        file = os.open(venv / ".set-up", os.O_RDWR | os.O_CREAT, 0o644)  # .lock is uv's own
    except OSError as error:
        raise SetupError(f"{venv} cannot be made or written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another set-up of {venv}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


if __name__ == "__main__":
    sys.exit(main())
