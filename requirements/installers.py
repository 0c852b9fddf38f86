"""What puts locked packages into an environment: uv or pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from requirements import layers, pip_settings
from requirements.errors import SetupError

OLDEST_UV = (0, 5)  # has all the flags that are used here
# By which uv may learn of indexes and folders
_PLACES = {
    "UV_INDEX",
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
}


class Installer(Protocol):
    """Installs exactly what it is given, without looking for dependencies.

    Attributes:
        folders: on this machine's disk that it takes packages from.
        offline: it may ask no index.
    """

    folders: list[Path]
    offline: bool

    def install(self, python: Path, requirements: str, *, index: str | None = None) -> None:
        """Installs what a requirements file says into a Python's environment, from one index if given."""

    def install_projects(self, python: Path, projects: Sequence[Path]) -> None:
        """Installs source folders so that changes of them show; what builds them has to be installed."""

    def remove(self, python: Path, names: Iterable[str]) -> None:
        """Takes packages out."""


class Uv:
    """Installs by uv, from where pip is configured to.

    Args:
        program: uv.
        python: whose pip configuration counts.
        spare_cache: folder for what is fetched, where uv's own can't be written.
    """

    def __init__(self, program: Path, python: Path, spare_cache: Path):
        settings = pip_settings.read(python)
        self.folders = pip_settings.folders(settings)
        self.offline = pip_settings.is_on(settings, "no-index")
        self._program = str(program)
        self._flags, variables = pip_settings.for_uv(settings, os.environ)
        self._variables = {**os.environ, **variables}
        self._variables.pop("VIRTUAL_ENV", None)  # it may be another one's
        cache = self._cache()
        if cache is None:
            cache, self._variables["UV_CACHE_DIR"] = spare_cache, str(spare_cache)
        self._cache_folder = cache

    def install(self, python: Path, requirements: str, *, index: str | None = None) -> None:
        """As `Installer` says."""
        flags, variables = self._flags, self._variables
        if index is not None:
            flags = [flag for flag in flags if flag[0] not in ("--index", "--find-links")]
            flags.append(("--default-index", index))
            variables = {name: value for name, value in variables.items() if name not in _PLACES}
        parts = [part for flag in flags for part in flag]
        with written(requirements, python) as file:
            self._run(
                "install", python, *parts, "--no-deps", "--requirements", str(file), variables=variables
            )

    def install_projects(self, python: Path, projects: Sequence[Path]) -> None:
        """As `Installer` says."""
        editable = [part for project in projects for part in ("--editable", str(project))]
        self._run("install", python, "--no-deps", "--no-build-isolation", "--offline", *editable)

    def remove(self, python: Path, names: Iterable[str]) -> None:
        """As `Installer` says."""
        if found := list(names):
            self._run("uninstall", python, *found)

    def _run(
        self, what: str, python: Path, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> None:
        command = [self._program, "pip", what, "--python", str(python), *arguments]
        if what == "install" and "UV_LINK_MODE" not in os.environ and not self._can_link(python):
            command += ["--link-mode", "copy"]
        if subprocess.run(command, env=variables or self._variables, cwd=layers.ROOT).returncode:
            raise SetupError(
                "uv failed, with the reason above; the same command goes on where it stopped, and "
                "INSTALLER=pip does without uv"
            )

    def _can_link(self, python: Path) -> bool:
        """Whether cache and environment share a file system; otherwise uv copies, and warns first."""
        try:
            self._cache_folder.mkdir(parents=True, exist_ok=True)
            return self._cache_folder.stat().st_dev == python.parent.stat().st_dev
        except OSError:
            return False

    def _cache(self) -> Path | None:
        """uv's folder for what is fetched; None where it can't be written."""
        done = subprocess.run(
            [self._program, "cache", "dir"], env=self._variables, capture_output=True, text=True, check=False
        )
        folder = Path(done.stdout.strip() or "/nowhere")
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        return folder if done.returncode == 0 and os.access(there, os.W_OK | os.X_OK) else None


class Pip:
    """Installs by the pip of an environment.

    Args:
        python: of that environment.
    """

    def __init__(self, python: Path):
        settings = pip_settings.read(python)
        self.folders = pip_settings.folders(settings)
        self.offline = pip_settings.is_on(settings, "no-index")
        self._python = str(python)

    def install(self, python: Path, requirements: str, *, index: str | None = None) -> None:
        """As `Installer` says."""
        place = ["--index-url", index] if index else []
        with written(requirements, python) as file:
            self._run(python, "install", "--no-deps", *place, "--requirement", str(file))

    def install_projects(self, python: Path, projects: Sequence[Path]) -> None:
        """As `Installer` says."""
        editable = [part for project in projects for part in ("--editable", str(project))]
        self._run(python, "install", "--no-deps", "--no-build-isolation", *editable)

    def remove(self, python: Path, names: Iterable[str]) -> None:
        """As `Installer` says."""
        if found := list(names):
            self._run(python, "uninstall", "--yes", *found)

    def _run(self, python: Path, *arguments: str) -> None:
        other = [] if str(python) == self._python else ["--python", str(python)]
        command = [self._python, "-m", "pip", "--disable-pip-version-check", *other, *arguments]
        if subprocess.run(command, cwd=layers.ROOT, check=False).returncode:
            raise SetupError("pip failed, with the reason above; the same command goes on where it stopped")


def find_uv(python: Path) -> tuple[Path | None, str]:
    """uv from the PATH or from the environment, where it is installed if need be; else None and why.

    Args:
        python: of the environment.
    """
    for found in (shutil.which("uv"), python.with_name("uv")):
        if found is not None and (version := uv_version(Path(found))) is not None and version >= OLDEST_UV:
            return Path(found), ""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
    command += ["--requirement", str(layers.path(layers.UV))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and uv_version(python.with_name("uv")) is not None:
        return python.with_name("uv"), ""
    output = (done.stderr.strip().splitlines() or ["it does not run here"])[-1]
    return None, f"uv is not on the PATH, and pip could not install it ({output.removeprefix('ERROR: ')})"


def uv_version(program: Path) -> tuple[int, ...] | None:
    """The version that a program says it has; None where it does not run."""
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.match(r"uv (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found and done.returncode == 0 else None


@contextmanager
def written(text: str, python: Path) -> Iterator[Path]:
    """The text as a file in the environment of a Python, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="set-up-", dir=python.parents[1]) as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(text, encoding="utf-8")
        yield file
