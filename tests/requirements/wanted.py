"""What pyproject.toml and the installed packages ask for, on several platforms, without a resolver."""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement

from requirements import layers

ROOT = layers.ROOT
CLIENT = ROOT / "client" / "pyproject.toml"
Platform = dict[str, str]


def _platform(system: str, machine: str, python: str) -> Platform:
    linux_or_mac = system in ("linux", "darwin")
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix" if linux_or_mac or system == "emscripten" else "nt",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}.get(
            system, "Emscripten"
        ),
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": system,
    }


PYTHONS = ("3.11.2", "3.11.9", "3.12.1", "3.13.0", "3.14.0")
PLATFORMS = [
    _platform(system, machine, python)
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in PYTHONS
]
# Not supported, but locked as well, since uv locks for every platform that there is.
OTHERS = [
    _platform(system, machine, python)
    for system, machine in (("win32", "AMD64"), ("emscripten", "wasm32"))
    for python in PYTHONS
]


def canonical(name: str) -> str:
    """A package's name as locks have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def document(path: Path = ROOT / "pyproject.toml") -> dict[str, Any]:
    """A pyproject.toml."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def direct(layer: str) -> list[Requirement]:
    """What pyproject.toml asks for by the extras and the group of a layer."""
    project = document()
    lines: list[str] = project["project"]["dependencies"] + [f"ebseg[{','.join(layers.EXTRAS[layer])}]"]
    if layer == "development":
        lines = lines + project["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines]


def requires(
    name: str, extras: Iterable[str], where: tuple[str, ...], platform: Platform
) -> Iterator[Requirement]:
    """What one package asks for on a platform.

    Args:
        name: of the package; nothing is known of one that is not installed, since it is for other platforms.
        extras: of it.
        where: folders that packages lie in; empty for those of this environment.
        platform: values of its markers.
    """
    for line in _lines(name, where):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**platform, "extra": extra}) for extra in ("", *extras)):
            yield requirement


@cache
def _lines(name: str, where: tuple[str, ...]) -> tuple[str, ...]:
    if name == "ebseg":
        extras = document()["project"]["optional-dependencies"]
        return tuple(_with_extra(line, extra) for extra, lines in extras.items() for line in lines)
    if name == "ebseg-client":
        return tuple(document(CLIENT)["project"]["dependencies"])
    found = metadata.distributions(name=name, path=list(where) or sys.path)
    for distribution in found:
        return tuple(distribution.requires or ())
    return ()


def _with_extra(line: str, extra: str) -> str:
    requirement = Requirement(line)
    own = f'extra == "{extra}"'
    requirement.marker = Marker(own if requirement.marker is None else f"({requirement.marker}) and {own}")
    return str(requirement)


def all_of(
    asked: Iterable[Requirement], where: tuple[str, ...], platform: Platform
) -> dict[str, list[Requirement]]:
    """Every requirement by the name of its package, those of packages that are required included."""
    found: dict[str, list[Requirement]] = {}
    waiting = [
        requirement
        for requirement in asked
        if requirement.marker is None or requirement.marker.evaluate(platform)
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        found.setdefault(name, []).append(requirement)
        if (name, frozenset(requirement.extras)) not in seen:
            seen.add((name, frozenset(requirement.extras)))
            waiting += requires(name, requirement.extras, where, platform)
    return found


def locked(files: Iterable[Path], platform: Platform) -> dict[str, set[str]]:
    """The versions of each package that locks have for a platform."""
    found: dict[str, set[str]] = {}
    for file in files:
        for line in layers.entries(file):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(platform):
                found.setdefault(requirement.name, set()).add(layers.version_of(line))
    return found
