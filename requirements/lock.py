"""Renews the locks from pyproject.toml, by uv. What was locked stays where it still fits.

    python3 -m requirements.lock
    python3 -m requirements.lock --upgrade
    python3 -m requirements.lock --upgrade-package fastapi --upgrade-package starlette

Indexes are those that pip is configured with, folders of this machine aside: those have some of a version's
files only, and a lock holds the hashes of all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from requirements import layers, pip_settings
from requirements.errors import SetupError
from requirements.install import environment
from requirements.installers import find_uv

PYPROJECT = layers.ROOT / "pyproject.toml"
# What each lock is made from: uv's arguments, and what stands on its standard input.
SOURCES = {
    **{
        layer: ([str(PYPROJECT), *(part for name in extras for part in ("--extra", name))], "")
        for layer, extras in layers.EXTRAS.items()
    },
    "development": ([str(PYPROJECT), "--extra", "dev", "--group", f"{PYPROJECT}:dev"], ""),
    "torch": (["-"], "\n".join(layers.BUILT_BOTH_WAYS)),
    "moto": (["--group", f"{PYPROJECT}:moto"], ""),
    "uv": (["-"], "uv"),
}
BELOW = {"training": "serving", "development": "training", "torch": "serving", "uv": "development"}
OWN = ("ebseg", "ebseg-client")  # distributions of this repository, which are installed from it


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 -m requirements.lock", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--upgrade", action="store_true", help="take the newest versions that fit pyproject.toml"
    )
    parser.add_argument(
        "--upgrade-package", action="append", default=[], metavar="NAME", help="only of this one"
    )
    options = parser.parse_args(argv)
    try:
        upgrade = ["--upgrade"] if options.upgrade else []
        upgrade += [part for name in options.upgrade_package for part in ("--upgrade-package", name)]
        renew(upgrade)
    except SetupError as error:
        print(f"lock: error: {error}", file=sys.stderr)
        return 2
    return 0


def renew(upgrade: list[str]) -> None:
    """Writes all locks, or none where one can't be made."""
    python = environment(layers.ROOT / ".venv")
    uv, problem = find_uv(python)
    if uv is None:
        raise SetupError(problem)
    settings = pip_settings.without_folders(pip_settings.read(python))
    flags, variables = pip_settings.for_uv(settings, os.environ)
    places = [part for flag in flags for part in flag]
    with tempfile.TemporaryDirectory(prefix="ebseg-lock-") as folder:
        made: dict[str, dict[str, str]] = {}
        for name, (arguments, text) in SOURCES.items():
            below = BELOW.get(name)
            file = Path(folder) / f"{name}.txt"
            file.write_text(known(name), encoding="utf-8")
            command = [str(uv), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
            command += ["--fork-strategy", "fewest", "--generate-hashes", "--no-header", "--no-annotate"]
            command += [*(part for own in OWN for part in ("--no-emit-package", own)), *places, *upgrade]
            command += ["--constraint", str(file.with_name(f"{below}.txt"))] if below else []
            command += ["--output-file", str(file), *arguments]
            done = subprocess.run(
                command, env={**os.environ, **variables}, input=text, text=True, cwd=layers.ROOT, check=False
            )
            if done.returncode:
                raise SetupError(
                    f"uv could not make the lock {name}, with the reason above; all are as they were"
                )
            made[name] = layers.entries(file)
        for name, own in made.items():
            lower = layers.FILES[: layers.FILES.index(name)] if name in layers.FILES else ()
            held = {line for layer in lower for line in made[layer]}
            write(name, [text for line, text in own.items() if line not in held])


def known(name: str) -> str:
    """What is locked today, from which uv departs only where it has to."""
    locks = layers.files(name) if name in layers.FILES else [layers.path(name)]
    if name == "torch":
        locks = layers.files("serving")
    return "\n".join(text for lock in locks if lock.exists() for text in layers.entries(lock).values()) + "\n"


def write(name: str, entries: list[str]) -> None:
    """Writes a lock, whole or not at all."""
    path = layers.path(name)
    draft = path.with_suffix(".new")
    draft.write_text(
        "# Made by `make lock` from pyproject.toml.\n" + "\n".join(entries) + "\n", encoding="utf-8"
    )
    draft.replace(path)
    print(f"{path.relative_to(layers.ROOT)}: {len(entries)} packages")


if __name__ == "__main__":
    sys.exit(main())
