"""The demo as `make demo` runs it."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "samples" / "demo.py"
SECONDS = 60
CLASSES = {"cup": "trained", "saucer": "new", "spoon": "trained", "coffee": "new", "dining table": "trained"}


def command(checkpoint: Path, out: Path) -> list[str]:
    return [sys.executable, str(DEMO), "--checkpoint", str(checkpoint), "--out", str(out)]


def assert_service_is_gone(log: Path) -> None:
    """Nobody listens any more where the log says that the service did."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (address,) = [entry["address"] for entry in entries if "address" in entry]
    where = urlsplit(address)
    with socket.socket() as probe:
        assert probe.connect_ex((where.hostname, where.port)) != 0


def test_demo_prints_the_table_and_writes_the_files(
    checkpoint: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        command(checkpoint, tmp_path),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = dict(re.findall(r"│ ([a-z ]+?) +│.*%.*│ (trained|new) +│", done.stdout))
    assert rows == CLASSES
    shares = [float(share) for share in re.findall(r"│ +([\d.]+)% │", done.stdout)]
    assert len(shares) == len(CLASSES)
    assert sum(shares) == pytest.approx(100, abs=0.3)  # each is rounded to 0.1
    assert "These weights are untrained: the mask means nothing yet." in done.stdout
    assert done.stdout.endswith("the service has stopped\n")

    with Image.open(tmp_path / "mask.png") as mask:
        assert (mask.size, mask.mode) == ((600, 400), "P")
        labels = np.asarray(mask)
    assert labels.min() >= 1  # no threshold was set, so no pixel is without a class
    assert labels.max() <= len(CLASSES)
    largest = float((labels == np.bincount(labels.ravel()).argmax()).mean())
    assert max(shares) == pytest.approx(100 * largest, abs=0.06)
    with Image.open(tmp_path / "overlay.webp") as overlay:
        assert (overlay.size, overlay.format) == ((600, 400), "WEBP")
    assert_service_is_gone(tmp_path / "service.log")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_stops_the_service(
    number: signal.Signals, checkpoint: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "service.log"
    with subprocess.Popen(
        command(checkpoint, tmp_path), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as demo:
        deadline = time.monotonic() + SECONDS
        while not (log.exists() and "address" in log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, "the service never listened"
            assert demo.poll() is None, "the demo ended by itself"
            time.sleep(0.05)
        demo.send_signal(number)
        assert demo.wait(SECONDS) == 128 + number
    assert_service_is_gone(log)


def refused(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A run of the demo that does not get through."""
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_demo_tells_why_a_checkpoint_cannot_be_served(environment: dict[str, str], tmp_path: Path) -> None:
    done = refused(command(tmp_path / "missing", tmp_path), environment)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: error: the service ended with exit code 2")
    assert "missing is not a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_shows_what_the_service_refused(
    checkpoint: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = refused([*command(checkpoint, tmp_path), "--classes", "cup, cup"], environment)
    assert done.returncode == 1
    assert done.stderr.startswith("demo: error: the service answered 422")
    assert "doubled" in done.stderr
    assert_service_is_gone(tmp_path / "service.log")
