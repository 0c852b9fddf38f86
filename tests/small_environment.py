"""Environments with few distributions, as users have who do not take everything; no network is needed.

The project's own are built and installed, as a user would; what they need is linked from the environment that
the tests run in.
"""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.waiting import WAIT

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")


def wheel(source: Path, folder: Path) -> Path:
    """Builds a wheel with setuptools; nothing is written beside the sources.

    Args:
        source: a copy of what lies around a pyproject.toml.
        folder: that the wheel goes to.
    """
    folder.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    return folder / ran([sys.executable, "-c", code], source).splitlines()[-1]


def client_source(folder: Path) -> Path:
    """A copy of `client/`."""
    return Path(shutil.copytree(ROOT / "client", folder / "client-source", ignore=LEFT_OUT))


def ebseg_source(folder: Path) -> Path:
    """A copy of what the wheel of ebseg is made of."""
    made = folder / "ebseg-source"
    made.mkdir()
    for name in ("model", "service", "training"):
        shutil.copytree(ROOT / name, made / name, ignore=LEFT_OUT)
    for name in ("ebseg.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made)
    return made


def environment(folder: Path, *wheels: Path) -> Path:
    """An environment with some wheels and what they need, extras not included; its folder of programs."""
    ran([sys.executable, "-m", "venv", str(folder)], folder.parent)
    programs = folder / "bin"
    pip = [str(programs / "pip"), "--disable-pip-version-check"]
    ran([*pip, "install", "--quiet", "--no-index", "--no-deps", *map(str, wheels)], folder)
    (site,) = folder.glob("lib/python*/site-packages")
    own = {name_of(file) for file in wheels}
    needed: dict[str, metadata.Distribution] = {}
    for name in own:
        (installed,) = metadata.distributions(name=name, path=[str(site)])
        _gather(installed, needed, own)
    for distribution in needed.values():
        link(distribution, site)
    assert ran([*pip, "check"], folder) == "No broken requirements found.\n"
    return programs


def name_of(file: Path) -> str:
    """The distribution of a wheel."""
    return file.name.partition("-")[0].replace("_", "-")


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Links the modules, libraries and metadata of a distribution into an environment's folder."""
    tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}
    for top in tops - {"__pycache__"}:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))


def _gather(
    distribution: metadata.Distribution, found: dict[str, metadata.Distribution], own: set[str]
) -> None:
    for line in distribution.requires or []:
        requirement = Requirement(line)
        name = requirement.name.lower().replace("_", "-")
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and name not in own and name not in found:
            found[name] = metadata.distribution(requirement.name)
            _gather(found[name], found, own)


def ran(words: list[str], folder: Path, code: int = 0, environment: dict[str, str] | None = None) -> str:
    """What a command prints on standard output; its exit code is checked."""
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
