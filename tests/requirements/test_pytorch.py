"""With CUDA or without: what is chosen where, and what is said about it."""

import ast
import platform
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest

from requirements import layers, pytorch
from requirements.pytorch import Choice, Environment, choose
from tests.requirements.checkout import index, serving, wheel

TORCH, VISION = layers.torch_version()
TAGS = "cp311-cp311-manylinux_2_28_x86_64"
HERE = Environment("cp311", "linux-x86_64", "")
NOWHERE = "http://127.0.0.1:9/whl"


def having(torch: str) -> Environment:
    return Environment(HERE.tag, HERE.platform, torch)


def both(folder: Path, local: str = "+cpu", tags: str = TAGS, torch: str = TORCH) -> Path:
    folder.mkdir()
    wheel(folder, "torch", f"{torch}{local}", tags)
    wheel(folder, "torchvision", f"{VISION}{local}", tags)
    return folder


def chosen(
    wanted: str, here: Environment, *folders: Path, place: str | None = NOWHERE, driver: bool = False
) -> Choice:
    return choose(wanted, here, folders, place, lambda: driver)


def test_what_is_installed_stays_unless_another_is_asked_for() -> None:
    plain, without = having(TORCH), having(f"{TORCH}+cpu")
    assert chosen("auto", plain) == Choice(cuda=True)
    assert chosen("auto", without, driver=True) == Choice(cuda=False)
    assert chosen("cpu", without) == Choice(cuda=False)
    assert chosen("cuda", plain) == Choice(cuda=True)
    assert chosen("cuda", without) == Choice(cuda=True, replace=True)
    choice = chosen("cpu", plain).reason
    assert choice.startswith(
        f"keeping PyTorch {TORCH} with CUDA: none without CUDA is to be had, since {NOWHERE} cannot"
    )


def test_a_driver_or_another_system_decide_without_asking() -> None:
    assert chosen("auto", HERE, driver=True) == Choice(cuda=True)
    assert chosen("cuda", HERE) == Choice(cuda=True)
    for wanted in pytorch.CHOICES:
        assert chosen(wanted, Environment("cp312", "macosx-14.0-arm64", "")) == Choice(cuda=True)


def test_the_disk_comes_before_the_network(tmp_path: Path) -> None:
    plain, without = both(tmp_path / "plain", ""), both(tmp_path / "without")
    choice = chosen("auto", HERE, plain)
    assert (choice.cuda, choice.index) == (True, None)
    assert choice.reason == f"PyTorch {TORCH} with CUDA: that one is on this machine's disk"
    assert chosen("auto", HERE, plain, without).cuda is False
    assert chosen("cpu", HERE, plain).reason.startswith(
        f"installing PyTorch {TORCH} with CUDA, 3 GB: none without"
    )
    simple = tmp_path / "simple"
    index(simple, without)
    for folder in (without, simple, simple / "torch" / "index.html"):
        found = chosen("cpu", HERE, folder, simple)
        assert (found.cuda, found.index) == (False, None)
        assert found.reason == f"PyTorch {TORCH} without CUDA, from this machine's disk"


@pytest.mark.parametrize(
    "other",
    [{"torch": "2.13.0"}, {"tags": TAGS.replace("311", "312")}, {"tags": TAGS.replace("x86_64", "aarch64")}],
)
def test_what_does_not_fit_is_not_taken(tmp_path: Path, other: dict[str, str]) -> None:
    wheels = both(tmp_path / "wheels", **other)
    index(tmp_path / "index", wheels)
    with serving(tmp_path / "index") as url:
        found = chosen("cpu", HERE, wheels, place=url)
    assert found.cuda
    assert found.reason.endswith(f"since {url} does not have it for this Python and machine")


def test_an_index_that_has_it_is_taken(tmp_path: Path) -> None:
    index(tmp_path / "index", both(tmp_path / "wheels"))
    with serving(tmp_path / "index") as url:
        for wanted in ("cpu", "auto"):
            found = chosen(wanted, HERE, place=f"{url}/")
            assert found == Choice(
                cuda=False, index=f"{url}/", reason=f"PyTorch {TORCH} without CUDA, from 127.0.0.1"
            )


@pytest.mark.parametrize(
    "place", [NOWHERE, "not an address", "http://[", "file:///absent", "http://name.invalid/whl"]
)
def test_an_index_that_cannot_be_asked_is_told(place: str) -> None:
    found = chosen("auto", HERE, place=place)
    assert (found.cuda, found.index) == (True, None)
    assert found.reason.startswith(
        f"installing PyTorch {TORCH} with CUDA, 3 GB: none without CUDA is to be had, since"
    )
    assert f"{place} cannot be reached (" in found.reason
    assert "\n" not in found.reason


def test_an_index_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert f"since {place} " in chosen("cpu", HERE, place=place).reason


def test_where_no_index_may_be_asked_none_is() -> None:
    assert chosen("cpu", HERE, place=None).reason.endswith("since pip is configured to ask no index")


def test_this_environment_is_known() -> None:
    found = Environment.of(Path(sys.executable))
    assert found.tag == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert found.platform.endswith(platform.machine())
    assert found.torch == metadata.version("torch")


@pytest.mark.parametrize("path", sorted(layers.FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_old_python_can_read_that_it_is_too_old(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
