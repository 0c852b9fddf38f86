"""docs/own-classes.md: its commands in their order and as they are written, on drawn photographs.

What makes training small comes after the command, as further options: the last word on an option counts.
"""

import io
import re
import shlex
import shutil
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
from training.data.layout import SegmentationFolder
from training.evaluation.metrics import Confusion
from training.storybook.classes import CLASSES, NEW
from training.storybook.generate import HEIGHT, HELD_OUT, WIDTH, scene_of
from training.storybook.scene import draw

DOCUMENT = "docs/own-classes.md"
TEXT = (ROOT / DOCUMENT).read_text(encoding="utf-8")
COMMANDS = [line for block in blocks() if block.document == DOCUMENT for line in lines(block)]
SERVE = "ebseg serve --registry registry --model own"
OWN = [line.strip() for line in TEXT.partition("_background_\n")[2].partition("\n\n")[0].splitlines()]
ADDRESS = "http://127.0.0.1:8000"
PHOTOS, SEED = 40, 401
SMALL = "--crop 128 --short-sides 128 --points 256 --workers 1 --pictures-every 0 --evaluate-every 20"
STEPS = {"400": "20", "600": "21"}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """What the page's reader has: photographs, a palette mask for each, and the names of the values."""
    table = np.zeros(len(CLASSES) + 1, np.uint8)
    table[[CLASSES.index(name) for name in OWN]] = range(1, len(OWN) + 1)
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    made = number = 0
    while made < PHOTOS:
        rng, kind, allowed = scene_of(SEED, HELD_OUT, number)
        number += 1
        drawn = draw(rng, kind, height=HEIGHT, width=WIDTH, allowed=allowed)
        values = table[drawn.labels]
        if values.any():
            name = f"photo{made}" if made else "first"
            made += 1
            Image.fromarray(drawn.picture).save(tmp_path / "photos" / f"{name}.jpg", quality=95)
            mask = Image.fromarray(values, mode="P")
            mask.putpalette([0, 0, 0, *(200, 0, 0) * len(OWN)])
            mask.save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "labels.txt").write_text("\n".join(["_background_", *OWN]) + "\n")
    shutil.copytree(ROOT / "model" / "pretrained", tmp_path / "model" / "pretrained")
    return tmp_path


@pytest.mark.slow
def test_the_page_from_photographs_to_a_hot_loaded_version(
    desk: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert set(OWN) <= set(NEW)  # EBSeg-tiny never saw a mask of them
    monkeypatch.chdir(desk)
    assert f"Start `{SERVE}`" in TEXT
    assert "Run step 3 with `--steps 600`, then step 5 again." in TEXT
    (segment,) = re.findall("^    (ebseg segment .*)$", TEXT, re.MULTILINE)
    assert len(COMMANDS) == 6
    printed = {command: run(command, capsys) for command in COMMANDS}
    untrained, trained = (
        score(text) for command, text in printed.items() if command.startswith("ebseg evaluate")
    )
    assert trained > untrained + 5  # 52.9 and about 63
    assert load("registry/own/1").manifest.name == "own"
    assert list(Path("out/worst").iterdir())
    assert {"confusion.csv", "confusion.png"} == {path.name for path in Path("out/confusion").iterdir()}
    words = [*shlex.split(SERVE), "--port", "0", "--registry-poll-s", "0.2"]
    with served(words, environment, desk, desk / "server.log") as url:
        assert all(name in run(segment.replace(ADDRESS, url), capsys) for name in OWN)
        with Image.open("photos/first.jpg") as photo, Image.open("overlay.png") as overlay:
            assert overlay.size == photo.size
        assert answered(url) > untrained + 5
        assert serving(url) == 1
        (train,), (publish,) = (
            [command for command in COMMANDS if command.startswith(f"ebseg {name} ")]
            for name in ("train", "publish")
        )
        run(train + " --steps 600", capsys)
        run(publish + " --margin 100", capsys)  # one more step may as well make it worse
        wait_until(lambda: serving(url) == 2)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command of the page prints; `ebseg train` is told to do less."""
    words = shlex.split(command)
    if words[1] == "train":
        words = [STEPS.get(word, word) for word in words] + SMALL.split()
    code = ebseg.main(words[1:])
    printed = capsys.readouterr()
    assert code == 0, f"{command}: {printed.err}"
    return printed.out


def score(printed: str) -> float:
    """mIoU over all classes, of `ebseg evaluate`."""
    (line,) = (line for line in printed.splitlines() if line.startswith("mIoU, all classes"))
    return float(line.split()[-1])


def answered(url: str) -> float:
    """mIoU of the service's answers on the photographs that were held out, percent."""
    folder = SegmentationFolder("data/own", "val")
    confusion = Confusion(len(OWN) + 1)  # the last is "other", which is wrong everywhere
    for sample in folder:
        answer = post(url, folder.files(sample.name)[0], {"Accept": "image/png"})
        with Image.open(io.BytesIO(answer.content)) as mask:
            confusion.add(sample.labels, (np.asarray(mask).astype(np.int64) - 1) % len(confusion))
    found = confusion.mean_iou()
    assert found is not None
    return found


def serving(url: str) -> int:
    """The version that answers."""
    found: int = post(url, Path("photos/first.jpg")).json()["model"]["version"]
    return found


def post(url: str, picture: Path, headers: dict[str, str] | None = None) -> httpx.Response:
    answer = httpx.post(
        f"{url}/v1/segment",
        files={"image": picture.read_bytes()},
        data={"classes": ",".join(OWN)},
        headers=headers,
    )
    assert answer.status_code == 200, answer.text
    return answer
