"""`make train-tiny` with a small share of the steps: every part of the recipe runs, and goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

from model.checkpoint import check_golden, load
from tests.waiting import LONG_WAIT, WAIT

ROOT = Path(__file__).parents[2]
SHARE = "0.004"


def ebseg(*args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ebseg", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT, check=True)


def test_recipe_runs_whole_and_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "tiny"
    make = ["make", "train-tiny", f"TINY={work}", f"SHARE={SHARE}", "SEED=3"]
    # the make that runs the tests hands its flags down
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    first = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT, env=environment)
    assert first.returncode == 0, first.stderr[-2000:]
    for told in ("1/5", "2/5", "3/5", "4/5", "5/5", "right under true masks"):
        assert told in first.stderr

    loaded = load(work / "registry" / "ebseg-tiny" / "1")
    assert not loaded.manifest.untrained
    assert check_golden(loaded) < 1e-3
    assert sum(entry.bytes for entry in loaded.manifest.files.values()) < 16e6
    assert set(loaded.metrics) >= {"miou_all", "miou_trained", "miou_new"}
    assert 0 <= loaded.metrics["miou_all"] <= 100

    # what is there is not made again; a lost run is
    made = (work / "clip.safetensors").stat().st_mtime_ns
    (work / "run" / "metrics.json").rename(tmp_path / "metrics.json")
    for left in sorted((work / "run").rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    (work / "run").rmdir()
    again = json.loads(ebseg("train-tiny", str(work), "--seed", "3", "--share", SHARE, "--json").stdout)
    assert (work / "clip.safetensors").stat().st_mtime_ns == made
    first_scores = json.loads((tmp_path / "metrics.json").read_text())
    assert again["miou_all"] == first_scores["miou_all"]  # the same seed, the same weights


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}\n")
    command = [sys.executable, "-m", "ebseg", "train-tiny", str(tmp_path), "--share", SHARE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 2
    assert "another recipe" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json"]
