"""docs/own-classes.md: its commands in their order and as they are written, on drawn photographs.

What makes training small comes after the command, as further options: the last word on an option counts.
"""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import ebseg
from model.storage.checkpoint import load
from tests.e2e.documents import ROOT, blocks, lines
from tests.e2e.processes import served
from tests.waiting import wait_until
from training.storybook.classes import CLASSES, TRAINED
from training.storybook.generate import HEIGHT, HELD_OUT, WIDTH, scene_of
from training.storybook.scene import draw

DOCUMENT = "docs/own-classes.md"
COMMANDS = [line for block in blocks() if block.document == DOCUMENT for line in lines(block)]
_, _, REST = (ROOT / DOCUMENT).read_text(encoding="utf-8").partition("_background_\n")
OWN = [line.strip() for line in REST.partition("\n\n")[0].splitlines()]
LABELS = "\n".join(["_background_", *OWN]) + "\n"
SERVE = "ebseg serve "
ADDRESS = "http://127.0.0.1:8000"
SCENES, SEED = 60, 401
SMALL = "--crop 128 --short-sides 128 160 --points 512 --workers 1 --pictures-every 0 --evaluate-every 20"
STEPS = {"400": "40", "600": "60"}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """What the page's reader has: photographs, a palette mask for each, and the names of the values."""
    table = np.zeros(len(CLASSES) + 1, np.uint8)
    table[[CLASSES.index(name) for name in OWN]] = range(1, len(OWN) + 1)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(SCENES):
        rng, kind, allowed = scene_of(SEED, HELD_OUT, index)
        drawn = draw(rng, kind, height=HEIGHT, width=WIDTH, allowed=allowed)
        values = table[drawn.labels]
        if values.any():
            name = "first" if not list((tmp_path / "photos").iterdir()) else f"photo{index}"
            Image.fromarray(drawn.picture).save(tmp_path / "photos" / f"{name}.jpg", quality=95)
            mask = Image.fromarray(values, mode="P")
            mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
            mask.save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "labels.txt").write_text(LABELS)
    shutil.copytree(ROOT / "model" / "pretrained", tmp_path / "model" / "pretrained")
    return tmp_path


def score(printed: str) -> float:
    """mIoU over all classes, of `ebseg evaluate`."""
    (line,) = (line for line in printed.splitlines() if line.startswith("mIoU, all classes"))
    return float(line.split()[-1])


def test_the_page_from_photographs_to_a_hot_loaded_version(
    desk: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not set(OWN) & set(TRAINED)  # no mask of them was ever seen
    monkeypatch.chdir(desk)
    before, after = COMMANDS[: COMMANDS.index(_serve())], COMMANDS[COMMANDS.index(_serve()) + 1 :]
    assert (len(before), len(after)) == (6, 4)
    printed = {command: _run(command, capsys) for command in before}
    scores = [score(text) for command, text in printed.items() if command.startswith("ebseg evaluate")]
    print(f"mIoU {scores[0]} without training, {scores[1]} after")
    assert scores[1] > scores[0] + 5
    assert load("registry/own/1").manifest.name == "own"
    assert len(list(Path("out/worst").iterdir())) > 0
    assert {"confusion.csv", "confusion.png"} == {path.name for path in Path("out/confusion").iterdir()}
    words = [*shlex.split(_serve()), "--port", "0", "--registry-poll-s", "0.2"]
    with served(words, environment, desk, desk / "server.log") as url:
        segment, train, publish, listing = (command.replace(ADDRESS, url) for command in after)
        assert all(name in _run(segment, capsys) for name in OWN)
        assert len(list(Path("out/overlay").iterdir())) == 1
        assert _serving(url)() == 1
        _run(train, capsys)
        _run(publish + " --margin 100", capsys)  # so few steps may as well make it worse
        wait_until(lambda: _serving(url)() == 2)
        assert "own" in _run(listing, capsys)


def _serve() -> str:
    (command,) = (command for command in COMMANDS if command.startswith(SERVE))
    return command


def _run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    words = shlex.split(command)
    if words[1] == "train":
        words = [STEPS.get(word, word) for word in words] + SMALL.split()
    code = ebseg.main(words[1:])
    printed = capsys.readouterr()
    assert code == 0, f"{command}: {printed.err}"
    return printed.out


def _serving(url: str) -> Callable[[], int]:
    """The version that answers."""

    def version() -> int:
        picture = Path("photos/first.jpg").read_bytes()
        answer = httpx.post(f"{url}/v1/segment", files={"image": picture}, data={"classes": ",".join(OWN)})
        assert answer.status_code == 200, answer.text
        found: int = json.loads(answer.text)["model"]["version"]
        return found

    return version
