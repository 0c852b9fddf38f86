"""A user's own `model.py`, `service.py` or `training.py`, which Python finds before ebseg's packages."""

import sys
from pathlib import Path

import pytest

from tests.e2e.processes import done

MODULE = [sys.executable, "-m", "ebseg", "--help"]
IMPORT = [sys.executable, "-c", "import ebseg"]
CONSOLE = ["ebseg", "--help"]
EFFECT = "open('ran', 'w').close()\n"  # theirs might do anything when it is imported


@pytest.fixture(params=["model.py", "service.py", "training.py", "model", "service/__init__.py"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file or a folder in a user's folder; the same folder without `__init__.py` hides packages too."""
    path = tmp_path / str(request.param)
    if path.suffix:
        path.parent.mkdir(exist_ok=True)
        path.write_text(EFFECT)
    else:
        path.mkdir()
    return tmp_path / Path(request.param).parts[0]


def sentence(theirs: Path, way_out: str) -> str:
    return f"{theirs} hides ebseg's own package `{theirs.stem}`: rename it, or {way_out}"


def test_command_tells_in_one_sentence(theirs: Path, environment: dict[str, str]) -> None:
    found = done(MODULE, environment, theirs.parent, 1)
    assert found.stdout == ""
    assert found.stderr == f"ebseg: error: {sentence(theirs, 'run ebseg from another folder')}\n"
    assert not (theirs.parent / "ran").exists()


def test_import_is_an_import_error_with_that_sentence(theirs: Path, environment: dict[str, str]) -> None:
    found = done(IMPORT, environment, theirs.parent, 1)
    last = found.stderr.splitlines()[-1]
    assert last == f"ImportError: {sentence(theirs, 'run ebseg from another folder')}"
    assert not (theirs.parent / "ran").exists()


def test_installed_command_does_not_look_into_the_users_folder(
    theirs: Path, environment: dict[str, str]
) -> None:
    assert done(CONSOLE, environment, theirs.parent).stdout.startswith("usage: ebseg")


def test_installed_command_with_that_folder_on_its_path(
    theirs: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = done(CONSOLE, environment | {"PYTHONPATH": str(theirs.parent)}, elsewhere, 1)
    way_out = f"take {theirs.parent} off Python's path"
    assert found.stderr == f"ebseg: error: {sentence(theirs, way_out)}\n"


def test_modules_that_are_loaded_already(environment: dict[str, str], tmp_path: Path) -> None:
    """In a notebook, say."""
    (tmp_path / "model.py").write_text("")
    code = "import model; import ebseg"
    found = done([sys.executable, "-c", code], environment, tmp_path, 1)
    assert f"ImportError: {tmp_path / 'model.py'} hides ebseg's own package `model`" in found.stderr
    code = "import sys, types; sys.modules['service'] = types.ModuleType('service'); import ebseg"
    found = done([sys.executable, "-c", code], environment, tmp_path.parent, 1)
    assert found.stderr.endswith(
        "ImportError: a module that is loaded already hides ebseg's own package `service`: "
        "give it another name\n"
    )


def test_other_names_hide_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    for name in ("models.py", "client.py", "serve.py"):
        (tmp_path / name).write_text(EFFECT)
    assert done(MODULE, environment, tmp_path).stdout.startswith("usage: ebseg")
    assert done(IMPORT, environment, tmp_path).stderr == ""
    assert not (tmp_path / "ran").exists()
