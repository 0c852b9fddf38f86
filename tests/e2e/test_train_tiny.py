"""`make train-tiny` with a small share of the steps: every part of the recipe runs, and goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.storage.checkpoint import check_golden, load
from tests.waiting import LONG_WAIT, WAIT

ROOT = Path(__file__).parents[2]
SHARE = "0.002"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's folder, after `make train-tiny`."""
    folder = tmp_path_factory.mktemp("recipe") / "tiny"
    make = ["make", "train-tiny", f"TINY={folder}", f"SHARE={SHARE}", "SEED=3"]
    # the make that runs the tests hands its flags down
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        make, cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for reported in ("1/5", "2/5", "3/5", "4/5", "5/5", "right under true masks"):
        assert reported in done.stderr
    return folder


def test_recipe_runs_whole(work: Path) -> None:
    loaded = load(work / "registry" / "ebseg-tiny" / "1")
    assert not loaded.manifest.untrained
    assert check_golden(loaded) < 1e-3
    assert sum(entry.bytes for entry in loaded.manifest.files.values()) < 16e6
    assert set(loaded.metrics) >= {"miou_all", "miou_trained", "miou_new"}
    assert 0 <= loaded.metrics["miou_all"] <= 100


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_a_lost_run_is(work: Path, tmp_path: Path) -> None:
    made = (work / "clip.safetensors").stat().st_mtime_ns
    (work / "run" / "metrics.json").rename(tmp_path / "metrics.json")
    for left in sorted((work / "run").rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    (work / "run").rmdir()
    command = [sys.executable, "-m", "ebseg", "train-tiny", str(work), "--seed", "3", "--share", SHARE]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT, check=True
    )
    assert (work / "clip.safetensors").stat().st_mtime_ns == made
    first_scores = json.loads((tmp_path / "metrics.json").read_text())
    assert json.loads(done.stdout)["miou_all"] == first_scores["miou_all"]  # the same seed, the same weights


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}\n")
    command = [sys.executable, "-m", "ebseg", "train-tiny", str(tmp_path), "--share", SHARE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 2
    assert "another recipe" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json"]
