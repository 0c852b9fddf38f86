"""ebseg and ebseg-client without their extras: what works, and what is said of the rest."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.documents import blocks
from tests.e2e.processes import done, served
from tests.e2e.test_cli import LEAVES, examples
from tests.small_environment import client_source, ebseg_source, wheel
from tests.small_environment import environment as small_environment

ROOT = Path(__file__).parents[2]
DEFAULT_URL = "http://127.0.0.1:8000"
EXAMPLES = [b.text for b in blocks() if (b.document, b.language) == ("client/README.md", "python")]
SAMPLES = ["harbour", "room", "street", "village"]
CLASSES = ("--classes", "house, boat, lamp, car, water")
TALKING = ("models", "vocabularies")  # commands that need a service and nothing else
EXTRA = re.compile(r"ebseg: error: this needs the package (\w+): pip install 'ebseg\[(\w+)\]'\n")


@pytest.fixture(scope="module")
def url(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real service with the packaged model, from the whole environment."""
    log = tmp_path_factory.mktemp("server") / "log"
    with served(["ebseg", "serve", "--port", "0"], environment, ROOT, log) as address:
        yield address


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    return wheel(client_source(folder), folder / "wheels")


@pytest.fixture(scope="module")
def with_client(client_wheel: Path) -> dict[str, str]:
    """The variables of a user who has installed `ebseg-client` alone."""
    return user_of(small_environment(client_wheel.parent / "environment", client_wheel))


@pytest.fixture(scope="module")
def with_base(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a user who has installed `ebseg` without extras."""
    folder = tmp_path_factory.mktemp("ebseg")
    own = wheel(ebseg_source(folder), folder / "wheels")
    return user_of(small_environment(folder / "environment", client_wheel, own))


def user_of(programs: Path) -> dict[str, str]:
    left_out = ("EBSEG_", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return inherited | {"PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin"}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_of_the_client(number: int, url: str, workspace: Path, with_client: dict[str, str]) -> None:
    assert len(EXAMPLES) == 4
    code = EXAMPLES[number]
    assert DEFAULT_URL in code
    ran = done(["python", "-c", code.replace(DEFAULT_URL, url)], with_client, workspace)
    lines = ran.stdout.splitlines()
    match number:
        case 0:
            assert {line.split()[0] for line in lines[:-1]} <= {"house", "butterfly", "hay"}
            assert lines[-1].startswith("(384, 512) uint16 ")
        case 1:
            assert [Path(line.split()[0]).stem for line in lines] == SAMPLES
            assert "failed" not in ran.stdout
        case 2:
            assert all(int(area) > 0 for area in lines[0].split())
            assert 0 < float(lines[1]) <= 1
        case 3:
            assert lines == [
                """[('classes.1', "class 'lamp' is given twice (places 0 and 1, counted from 0)")]"""
            ]


def test_help_version_and_completion(with_base: dict[str, str], tmp_path: Path) -> None:
    assert done(["ebseg", "--help"], with_base, tmp_path).stdout.startswith("usage: ebseg")
    version = done(["ebseg", "--version"], with_base, tmp_path).stdout
    assert version == f"ebseg {metadata.version('ebseg')}\n"
    assert "complete" in done(["ebseg", "completion", "bash"], with_base, tmp_path).stdout


def test_segment_with_a_service(
    url: str, environment: dict[str, str], with_base: dict[str, str], tmp_path: Path
) -> None:
    """The same files and documents as with everything installed."""
    words = ["ebseg", "segment", str(ROOT / "samples"), *CLASSES, "--json", "--url", url]
    found = []
    for name, user in (("small", with_base), ("whole", environment)):
        folder = tmp_path / name
        folder.mkdir()
        files = ("--out", "masks", "--overlay", "overlays", "--sheet", "sheet.png")
        lines = done([*words, *files], user, folder).stdout.splitlines()
        found.append([json.loads(line)["classes"] for line in lines])
    assert found[0] == found[1]
    assert len(found[0]) == len(SAMPLES)
    written = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(written) == 9
    for path in written:
        with Image.open(tmp_path / "small" / path) as small, Image.open(tmp_path / "whole" / path) as whole:
            assert (np.asarray(small) == np.asarray(whole)).all(), path


def test_table_of_one_picture(url: str, with_base: dict[str, str], tmp_path: Path) -> None:
    picture = str(ROOT / "samples" / "village.jpg")
    printed = done(["ebseg", "segment", picture, "--vocabulary", "voc-20", "--url", url], with_base, tmp_path)
    assert "512 x 384, ebseg-tiny/" in printed.stdout
    twice = ["ebseg", "segment", picture, "--classes", "hay, hay", "--url", url]
    assert "classes.1: class 'hay' is given twice" in done(twice, with_base, tmp_path, 2).stderr


def test_models_and_vocabularies(url: str, with_base: dict[str, str], tmp_path: Path) -> None:
    def ran(*words: str, code: int = 0) -> str:
        return done(["ebseg", *words, "--url", url], with_base, tmp_path, code).stdout

    assert "ebseg-tiny" in ran("models", "list")
    assert json.loads(ran("models", "show", "ebseg-tiny", "--json"))["name"] == "ebseg-tiny"
    assert ran("models", "rollback", "ebseg-tiny", code=2) == ""
    assert ran("vocabularies", "put", "mine", "--classes", "house,hay") == "stored mine, 2 classes\n"
    assert "mine" in ran("vocabularies", "list")
    assert "hay" in ran("vocabularies", "show", "mine")
    assert ran("vocabularies", "delete", "mine") == "removed mine\n"


@pytest.mark.parametrize(
    ("line", "extra"),
    [
        ("serve", "service"),
        ("serve --print-config", "service"),
        ("segment samples/village.jpg --classes hay", "service"),
        ("inspect", "model"),
        ("init --variant tiny --out registry/mine/1", "model"),
        ("bench engine --variant tiny --size 64 --classes 2 --dtype float32", "model"),
        ("bench service", "service"),
        ("storybook data/mine --train 1 --val 1", "training"),
        ("evaluate model/pretrained/ebseg-tiny/1 data/held-out", "training"),
    ],
)
def test_what_is_missing_is_told(line: str, extra: str, with_base: dict[str, str], workspace: Path) -> None:
    found = done(["ebseg", *line.split()], with_base, workspace, 1)
    printed = EXTRA.fullmatch(found.stderr)
    assert printed is not None, found.stderr
    assert (printed[2], found.stdout) == (extra, "")


@pytest.mark.parametrize("name", [name for name in LEAVES if name.partition(" ")[0] not in TALKING])
def test_no_command_ends_in_a_fault(name: str, with_base: dict[str, str], tmp_path: Path) -> None:
    """Every command, by the first example of its help; most name a missing file, or what is not installed."""
    (line, *_) = (line for line in examples(LEAVES[name]) if line.startswith("ebseg "))
    found = done([*shlex.split(line)], with_base, tmp_path, None)
    if found.returncode != 0:
        assert re.fullmatch(r"ebseg: error: [^\n]+\n", found.stderr), found.stderr
        assert "fault of ebseg" not in found.stderr
        named = EXTRA.fullmatch(found.stderr)
        assert named is None or named[2] == LEAVES[name].get_default("run").__module__.partition(".")[0]
