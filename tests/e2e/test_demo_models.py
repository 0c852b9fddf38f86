"""`make demo MODEL=...`: photographs for models that know them, and a line where there is no network."""

import argparse
import hashlib
import importlib
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from rich.console import Console

from model.storage.packaged import packaged_checkpoint
from tests.model.checkpoints import make, write
from tests.waiting import LONG_WAIT

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def photographs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SAMPLES)  # as Python does for a script
    return importlib.import_module("photographs")


@pytest.fixture
def demo(photographs: ModuleType) -> ModuleType:
    return importlib.import_module("demo")


@pytest.fixture
def package(photographs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder of a package that looks like scikit-image, its pictures with the right digests."""
    data = tmp_path / "site" / "skimage" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise AssertionError('nothing of it is run')")
    for number, (name, (_, shown, absent)) in enumerate(list(photographs.PHOTOGRAPHS.items())):
        Image.new("RGB", (40, 30), (9 * number, 99, 9)).save(data / name)
        digest = hashlib.sha256((data / name).read_bytes()).hexdigest()
        monkeypatch.setitem(photographs.PHOTOGRAPHS, name, (digest, shown, absent))
    monkeypatch.syspath_prepend(data.parents[1])
    return data


def test_photographs_come_from_the_package(photographs: ModuleType, package: Path, tmp_path: Path) -> None:
    found = photographs.photographs(tmp_path / "out")
    assert [path.name for path in found] == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    for path, classes in found.items():
        assert path.read_bytes() == (package / path.name).read_bytes()
        assert len(set(classes)) == len(classes) >= 4
    (package / "coffee.png").unlink()
    assert photographs.photographs(tmp_path / "out") == found  # they are there already


def test_other_pictures_are_not_taken(photographs: ModuleType, package: Path, tmp_path: Path) -> None:
    (package / "chelsea.png").write_bytes(b"a dog")
    with pytest.raises(photographs.NoPhotographsError, match=r"holds another chelsea\.png"):
        photographs.photographs(tmp_path / "out")
    assert not (tmp_path / "out" / "chelsea.png").exists()
    (package / "chelsea.png").unlink()
    with pytest.raises(photographs.NoPhotographsError, match=r"holds no chelsea\.png any more"):
        photographs.photographs(tmp_path / "out")


def test_a_package_that_cannot_be_fetched(
    photographs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(name, "1")
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(photographs.NoPhotographsError, match="scikit-image cannot be fetched"):
        photographs.photographs(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_scenes_of_models_by_name(demo: ModuleType, package: Path, tmp_path: Path) -> None:
    output = Console(file=io.StringIO(), width=200)
    args = argparse.Namespace(picture=None, model="base", out=tmp_path / "out")
    shown = [scene.picture.name for scene in demo.scenes(args, tmp_path, output)]
    assert shown == ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"]
    # EBSeg-tiny knows drawn scenes only
    shown = [scene.picture.name for scene in demo.scenes(args, packaged_checkpoint(), output)]
    assert shown == ["village.jpg", "harbour.jpg", "street.jpg", "room.jpg"]
    (package / "rocket.jpg").write_bytes(b"")
    args.out = tmp_path / "elsewhere"
    assert [scene.picture.name for scene in demo.scenes(args, tmp_path, output)] == shown
    printed = output.file.getvalue()  # type: ignore[attr-defined]
    assert printed == (
        "no photographs, so these are drawn scenes: the package scikit-image holds another rocket.jpg\n"
    )


def test_a_model_that_is_here_is_shown(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(make(reads=True), tmp_path / "registry" / "ebseg-base" / "1", name="ebseg-base")
    args = argparse.Namespace(model="base", checkpoint=None, yes=False)
    output = Console(file=io.StringIO())
    assert demo.chosen_checkpoint(args, output) == Path("registry/ebseg-base/1")
    args.model = "tiny"
    assert demo.chosen_checkpoint(args, output) == packaged_checkpoint()


def test_without_a_network_the_demo_says_so_and_shows_the_small_model(
    environment: dict[str, str], tmp_path: Path
) -> None:
    places = {"HF_ENDPOINT": "https://hub.invalid", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(SAMPLES / "demo.py"), "--model", "base", "--out", "out"],
        cwd=tmp_path,
        env=environment | places,
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *_ = done.stdout.splitlines()
    assert first.startswith("base cannot be fetched now, so this is EBSeg-tiny: ")
    assert "hub.invalid" in first
    for name in ("village", "harbour", "street", "room"):
        assert f"{name}.jpg, 512 x 384, ebseg-tiny/1" in done.stdout
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize("words", [("--model", "base", "--checkpoint", "x"), ("--yes",)])
def test_what_does_not_go_together(
    words: tuple[str, ...], demo: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        demo.parse([*words])
    assert "go together" in capsys.readouterr().err or words == ("--yes",)
