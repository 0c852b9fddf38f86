"""Sizes and contents of source files."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("model", "service", "training", "requirements", "client", "samples", "tests")
FILES = [ROOT / "ebseg.py", *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]
LONGEST = 400


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_file_is_short_and_free_of_leftovers(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    # spelt so that this file does not find itself
    leftover = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b|pytest\.mark\.(skip|x" r"fail)|^\s*except:")
    assert [line for line in lines if leftover.search(line)] == []


@pytest.mark.parametrize("path", FILES, ids=label)
def test_file_names_no_machine(path: Path) -> None:
    local = re.compile(r"(?<![\w.])/(work|home|root|Users)/|\.\./sha" r"red")
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if local.search(line)] == []


@pytest.mark.parametrize("package", ["model", "service", "training", "client"])
def test_modules_say_what_they_are_for(package: str) -> None:
    silent = [
        label(path)
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.name != "__init__.py" and not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


# Constants that stand twice with one value, and why.
TWICE = {
    "SCHEMA": "each of a format of its own, which go on one by one",
    "FONT_SIZE": "a look; service and training share no module",
    "WIDE": "the same look, of outlines; training imports no client",
    "TIMEOUT": "of the client, whose import would make `ebseg --help` load httpx",
    "_HEAD_END": "of HTTP, on both ends of a connection: the bench reads with no code of the service",
}


def constants() -> dict[tuple[str, str], list[str]]:
    """Modules that set a constant to a value, by its name and the value's source; loggers and types not."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in FILES:
        if label(path).startswith("tests/"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if not isinstance(target, ast.Name) or not target.id.isupper() or value is None:
                continue
            if not re.match(r"logging\.getLogger|TypeVar|ParamSpec", source := ast.unparse(value)):
                found[target.id, source].append(label(path))
    return found


def test_a_constant_has_one_home() -> None:
    found = constants()
    assert len(found) > 500
    twice = {name: paths for (name, _), paths in found.items() if len(paths) > 1}
    assert twice.keys() - TWICE.keys() == set(), twice
    assert TWICE.keys() - twice.keys() == set()


def test_a_class_name_stands_once() -> None:
    """What client and service both have is the same thing on both sides: the client counts for itself."""
    houses: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in FILES:
        house = label(path).partition("/")[0]
        if house == "tests":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                houses["client" if house == "client" else "project"][node.name].append(label(path))
    assert len(houses["project"]) > 300
    twice = {name: paths for names in houses.values() for name, paths in names.items() if len(paths) > 1}
    assert twice == {}
