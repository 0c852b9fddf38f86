"""`ebseg serve MODEL` and `ebseg segment --model`: from a name to masks, pulled where it is missing."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model.network.build import build
from model.network.config import VARIANTS
from model.official import to_official
from model.released.torch_file import write_state_dict
from model.vocabulary.classes import TrainingClasses
from tests.e2e.processes import done, served
from tests.hub.server import Hub, hub_server
from tests.waiting import WAIT

ROOT = Path(__file__).parents[3]
ENTRY = [sys.executable, "-m", "ebseg"]
TINY = "hf://slonetime/EBSeg/EBSeg_tiny.pth"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=5)
    write_state_dict(folder / "EBSeg_tiny.pth", to_official(ebseg))
    with hub_server(folder) as server:
        server.repositories.add("slonetime/EBSeg", {"EBSeg_tiny.pth": folder / "EBSeg_tiny.pth"})
        yield server


@pytest.fixture
def environment(hub: Hub) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_model_that_is_missing_is_pulled_and_served(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    words = [*ENTRY, "segment", str(ROOT / "samples" / "room.jpg"), "--classes", "lamp, clock", "--json"]
    ended = done([*words, "--model", TINY], environment, tmp_path)
    assert json.loads(ended.stdout)["model"]["name"] == "ebseg-tiny"
    assert f"ebseg: fetching {TINY} at {hub.url}" in ended.stderr
    asked = len(hub.requests)
    with served([*ENTRY, "serve", TINY, "--port", "0"], environment, tmp_path, log) as address:
        (model,) = httpx.get(f"{address}/v1/models", timeout=WAIT).json()["models"]
    assert model["name"] == "ebseg-tiny"
    assert len(hub.requests) == asked


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["serve", "base", "--checkpoint", "x"], 2, "MODEL (base) does not go with --checkpoint"),
        (["serve", "base", "--registry", "x", "--model", "y"], 2, "MODEL (base) does not go with --registry"),
        (["serve", "--yes"], 2, "--yes needs a MODEL"),
        (["serve", "bose"], 2, "there is no folder bose, and no model of that name: give tiny, base, large"),
        (["serve", "base", "--port", "many"], 2, "port: "),
        (["serve", "hf://slonetime/EBSeg/none.pth"], 1, "slonetime/EBSeg has no file none.pth"),
        (
            ["segment", "x.png", "--classes", "a", "--model", "base", "--checkpoint", "x"],
            2,
            "do not go together",
        ),
        (["segment", "x.png", "--classes", "a", "--yes"], 2, "--yes needs a --model"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], code: int, message: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "x.png").write_bytes((ROOT / "samples" / "room.jpg").read_bytes())
    ended = done([*ENTRY, *words], environment, tmp_path, code)
    assert ended.stdout == ""
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "registry").exists()


def test_settings_of_a_model_are_told_before_it_is_there(
    hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    asked = len(hub.requests)
    ended = done([*ENTRY, "serve", "base", "--print-config"], environment, tmp_path)
    assert 'checkpoint = "registry/ebseg-base/1"' in ended.stdout
    assert len(hub.requests) == asked
