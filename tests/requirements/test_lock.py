"""`make lock`, by the real uv from a small index."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from requirements import layers
from tests.requirements.checkout import Checkout, index, serving, wheel
from tests.requirements.test_install import environment  # noqa: F401 - a fixture

PROJECT = """[project]
name = "ebseg"
version = "1"
requires-python = ">=3.11"
dependencies = ["argcomplete>=3"]

[project.optional-dependencies]
service = ["torch", "fastapi>=1,<3"]
s3 = []
otlp = []
gs = []
azure = []
training = ["torch", "fastapi", "tensorboard"]
dev = ["ebseg[service,training]"]

[dependency-groups]
dev = ["pytest"]
moto = ["moto", "fastapi==1.1"]
"""


@pytest.fixture
def checkout(tmp_path: Path, environment: Path) -> Iterator[Checkout]:  # noqa: F811
    made = Checkout(tmp_path, environment)
    (made.root / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    for lock in (made.root / "requirements").glob("*.txt"):
        lock.unlink()
    wheels = tmp_path / "published"
    wheels.mkdir()
    for name in ("argcomplete", "torch", "torchvision", "tensorboard", "pytest", "moto", "uv"):
        wheel(wheels, name, "3.0")
    for version in ("1.0", "1.1", "2.0"):
        wheel(wheels, "fastapi", version, requires=("starlette; sys_platform == 'linux'",))
    wheel(wheels, "starlette", "1.0")
    index(tmp_path / "index", wheels)
    with serving(tmp_path / "index") as url:
        made.variables["PIP_INDEX_URL"] = url
        yield made


def locked(checkout: Checkout, name: str) -> list[str]:
    return list(layers.entries(checkout.root / "requirements" / f"{name}.txt"))


def test_locks_are_layers_and_stay_as_they_are(checkout: Checkout) -> None:
    checkout.run("make", "lock", "UPGRADE=")
    found = {name: locked(checkout, name) for name in (*layers.FILES, "moto", "uv")}
    assert found == {
        "torch": ["torch==3.0", "torchvision==3.0"],
        "serving": ["argcomplete==3.0", "fastapi==2.0", "starlette==1.0 ; sys_platform == 'linux'"],
        "training": ["tensorboard==3.0"],
        "development": ["pytest==3.0"],
        "moto": ["fastapi==1.1", "moto==3.0", "starlette==1.0 ; sys_platform == 'linux'"],
        "uv": ["uv==3.0"],
    }
    project = checkout.root / "pyproject.toml"
    project.write_text(PROJECT.replace("fastapi>=1,<3", "fastapi<2"), encoding="utf-8")
    checkout.run("make", "lock")
    assert locked(checkout, "serving")[1] == "fastapi==1.1"
    project.write_text(PROJECT, encoding="utf-8")
    checkout.run("make", "lock")
    assert locked(checkout, "serving")[1] == "fastapi==1.1"  # it still fits
    checkout.run("make", "lock", "UPGRADE=argcomplete")
    assert locked(checkout, "serving")[1] == "fastapi==1.1"
    checkout.run("make", "lock", "UPGRADE=argcomplete fastapi")
    assert locked(checkout, "serving")[1] == "fastapi==2.0"
    texts = [path.read_text(encoding="utf-8") for path in (checkout.root / "requirements").glob("*.txt")]
    assert not re.search(rf"://|{re.escape(str(checkout.root.parent))}", "".join(texts))


def test_what_cannot_be_locked_leaves_the_locks(checkout: Checkout) -> None:
    checkout.run("make", "lock")
    before = locked(checkout, "serving")
    project = PROJECT.replace("fastapi>=1,<3", "fastapi>=9").replace("argcomplete>=3", "pytest")
    (checkout.root / "pyproject.toml").write_text(project, encoding="utf-8")
    printed = checkout.run("make", "lock", code=2)
    assert "fastapi" in printed
    assert (
        "lock: error: uv could not make the lock serving, with the reason above; all are as they were"
        in printed
    )
    assert locked(checkout, "serving") == before
