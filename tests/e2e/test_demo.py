"""The demo as `make demo` runs it, and the scenes that it sends."""

import json
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.waiting import WAIT, wait_until
from training.storybook.classes import CLASSES, NEW
from training.storybook.scene import draw

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
DEMO = SAMPLES / "demo.py"
NAMES = ("harbour", "room", "street", "village")
SIZE = (512, 384)
LEAST_SHOWN = 0.01  # of a scene's pixels; less of a class need not be asked for
LEAST_RIGHT = 0.8  # of a scene's pixels
LEAST_SURE = 0.6  # share of the pixels that are not called other, though all of the scene is asked for
JPEG_ERROR = 6.0  # mean of 255 steps

Asked = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""The demo's table: of each scene the classes that it shows, and others."""
Drawn = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Pictures and true labels of the scenes."""


def command(out: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(DEMO), "--out", str(out), *map(str, arguments)]


def run(
    arguments: list[str], environment: dict[str, str], folder: Path
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT, check=False
    )


def assert_service_is_gone(log: Path) -> None:
    """Nobody listens any more where the log says that the service did."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (address,) = [entry["address"] for entry in entries if "address" in entry]
    where = urlsplit(address)
    with socket.socket() as probe:
        assert probe.connect_ex((where.hostname, where.port)) != 0


@pytest.fixture(scope="module")
def shown(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the demo printed, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp("demo")
    done = run(command(folder / "out"), environment, folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, folder / "out"


@pytest.fixture(scope="module")
def asked() -> Asked:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SAMPLES)  # as Python does for a script
        table: Asked = runpy.run_path(str(DEMO))["SCENES"]
    return table


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """The scenes' pictures and true labels, drawn again."""
    drawer = runpy.run_path(str(SAMPLES / "draw.py"))
    made = {}
    for name, (kind, number) in drawer["SCENES"].items():
        generator = np.random.default_rng([drawer["SEED"], number])
        scene = draw(generator, kind, height=drawer["HEIGHT"], width=drawer["WIDTH"])
        made[name] = (scene.picture, scene.labels.astype(np.int64))
    return made


def read_labels(path: Path, names: tuple[str, ...]) -> NDArray[np.int64]:
    """A mask of the demo, in Storybook's numbers; -1 is "other"."""
    with Image.open(path) as mask:
        assert (mask.size, mask.mode) == (SIZE, "P")
        labels = np.asarray(mask).astype(np.int64)
    numbers: NDArray[np.int64] = np.array([-1, *(CLASSES.index(name) for name in names)])[labels]
    return numbers


def test_samples_are_what_the_drawer_draws(
    drawn: Drawn,
) -> None:
    assert sorted(drawn) == sorted(path.stem for path in SAMPLES.glob("*.jpg")) == sorted(NAMES)
    for name, (picture, _) in drawn.items():
        with Image.open(SAMPLES / f"{name}.jpg") as sample:
            assert sample.size == SIZE
            assert np.abs(np.asarray(sample).astype(float) - picture).mean() < JPEG_ERROR


def test_demo_asks_for_what_the_scenes_show_and_more(
    asked: Asked,
    drawn: Drawn,
) -> None:
    assert sorted(asked) == sorted(NAMES)
    for name, (present, absent) in asked.items():
        numbers, counts = np.unique(drawn[name][1], return_counts=True)
        large = {CLASSES[number] for number in numbers[counts >= LEAST_SHOWN * drawn[name][1].size]}
        assert set(present) == large
        assert set(absent) <= set(CLASSES) - {CLASSES[number] for number in numbers}
        assert len(absent) >= 2
        assert set(present) & set(NEW), f"{name} should show a class whose masks training never saw"


def test_demo_prints_a_table_of_each_scene(shown: tuple[str, Path], asked: Asked) -> None:
    reported, folder = shown
    for name, (present, absent) in asked.items():
        table = reported.partition(f"{name}.jpg, 512 x 384")[2].partition("time in ms")[0]
        rows = re.findall(
            r"│ ([a-z ]+?) +│ .*?#[0-9a-f]{6} +│ +([\d.]+)% │ +([\d.]+|-) │ (trained|new) +│", table
        )
        kinds = {row[0]: row[3] for row in rows}
        assert kinds == {item: "new" if item in NEW else "trained" for item in present + absent}
        (other,) = re.findall(r"│ other +│ +│ +([\d.]+)% │ +< 0\.50 │", table)
        shares = [float(row[1]) for row in rows]
        assert sum(shares) + float(other) == pytest.approx(100, abs=0.6)  # each is rounded to 0.1
        labels = read_labels(folder / f"{name}-mask.png", present + absent)
        for item, share, _, _ in rows:
            assert float(share) == pytest.approx(100 * (labels == CLASSES.index(item)).mean(), abs=0.06)
    assert "untrained" not in reported
    assert reported.endswith("the service has stopped\n")
    assert_service_is_gone(folder / "service.log")


def test_demo_writes_overlays_and_a_contact_sheet(shown: tuple[str, Path]) -> None:
    _, folder = shown
    for name in NAMES:
        with Image.open(folder / f"{name}-overlay.webp") as overlay:
            assert (overlay.size, overlay.format) == (SIZE, "WEBP")
    with Image.open(folder / "demo.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(float)
    assert pixels.shape[1] >= 4 * 400
    assert pixels.shape[0] >= 2 * 300
    grey = pixels.mean(2)
    assert 0.5 < (grey < 250).mean() < 0.95  # pictures on paper


@pytest.mark.parametrize("name", NAMES)
def test_packaged_model_segments_the_scenes_well(
    name: str,
    shown: tuple[str, Path],
    asked: Asked,
    drawn: Drawn,
) -> None:
    truth = drawn[name][1]
    labels = read_labels(shown[1] / f"{name}-mask.png", sum(asked[name], ()))
    right = {
        CLASSES[number]: float((labels[truth == number] == number).mean()) for number in np.unique(truth)
    }
    sure = labels >= 0
    assert (labels == truth)[sure].mean() >= LEAST_RIGHT, right
    assert sure.mean() >= LEAST_SURE, right


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_stops_the_service(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "service.log"
    under_nohup = ["sh", "-c", """trap '' HUP; exec "$0" "$@\"""", *command(tmp_path)]
    with subprocess.Popen(
        under_nohup, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as demo:
        wait_until(
            lambda: (
                demo.poll() is not None or (log.exists() and "address" in log.read_text(encoding="utf-8"))
            ),
            pause=0.05,
        )
        assert demo.poll() is None, "the demo ended by itself"
        demo.send_signal(signal.SIGHUP)  # which it was set to ignore
        demo.send_signal(number)
        assert demo.wait(WAIT) == 128 + number
    assert_service_is_gone(log)


def test_own_picture_and_an_untrained_checkpoint(
    untrained: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    Image.new("RGB", (90, 60), (200, 120, 40)).save(tmp_path / "mine.png")
    picture = ("--picture", tmp_path / "mine.png", "--classes", "cup, saucer")
    done = run(command(tmp_path, *picture, "--checkpoint", untrained), environment, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "These weights are untrained: the mask means nothing yet." in done.stdout
    assert [name in done.stdout for name in ("mine.png, 90 x 60", " cup ", " saucer ")] == [True] * 3
    with Image.open(tmp_path / "mine-mask.png") as mask:
        assert mask.size == (90, 60)
    assert (tmp_path / "demo.png").stat().st_size > 0


def test_demo_tells_why_a_checkpoint_cannot_be_served(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(command(tmp_path, "--checkpoint", tmp_path / "missing"), environment, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: error: the service ended with exit code 2")
    assert "missing is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_shows_what_the_service_refused(environment: dict[str, str], tmp_path: Path) -> None:
    picture = ("--picture", SAMPLES / "room.jpg", "--classes", "cup, cup")
    done = run(command(tmp_path, *picture), environment, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: error: the service answered 422")
    assert "given twice" in done.stderr
    assert_service_is_gone(tmp_path / "service.log")


def test_classes_without_a_picture_are_refused(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(command(tmp_path, "--classes", "cup"), environment, tmp_path)
    assert done.returncode == 2
    assert "--picture and --classes go together" in done.stderr
    assert list(tmp_path.iterdir()) == []
