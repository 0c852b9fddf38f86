"""Weights are read from their file, not left in it: what becomes of the file later harms nobody."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.errors import CheckpointError
from model.network.build import build
from model.network.config import VARIANTS
from model.storage.files import read_tensors, write_tensors
from model.storage.manifest import WEIGHTS
from tests.model.checkpoints import CLASSES, make, write

ROOT = Path(__file__).parents[3]
CUT = """
import os, sys
import numpy as np
from service.scheduling.torch_engine import load_engine

folder, mapped = sys.argv[1], sys.argv[2] == "mapped"
engine = load_engine(__import__("pathlib").Path(folder), map_weights=mapped)
picture = [engine.prepare(np.full((64, 64, 3), 90, np.uint8))]
before = engine.predict(picture)[0].masks.mask_logits
os.truncate(f"{folder}/model.safetensors", 0)
after = engine.predict(picture)[0].masks.mask_logits
print("same" if before.equal(after) else "other")
"""
PEAK = """
import re, sys
from model.storage import checkpoint

def memory(name):
    return int(re.search(name + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1]) << 10

checkpoint.load(sys.argv[1])  # imports and first allocations
open("/proc/self/clear_refs", "w").write("5")  # the peak counts anew
before = memory("VmRSS")
loaded = checkpoint.load(sys.argv[2])
print(memory("VmHWM") - before, sum(t.nbytes for t in loaded.ebseg.state_dict().values()))
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)


def test_a_file_that_is_cut_after_loading_changes_nothing(tmp_path: Path) -> None:
    write(make(), tmp_path / "1")
    done = run(CUT, tmp_path / "1", "read")
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr


def test_only_who_asks_for_it_has_weights_mapped(tmp_path: Path) -> None:
    write(make(), tmp_path / "1")
    done = run(CUT, tmp_path / "1", "mapped")
    assert done.returncode == -7  # SIGBUS


@pytest.mark.parametrize(("store_as", "most"), [(None, 1.2), (torch.float16, 1.7)])
def test_loading_holds_the_weights_once(tmp_path: Path, store_as: torch.dtype | None, most: float) -> None:
    tiny = VARIANTS["tiny"]
    clip = dataclasses.replace(tiny.clip, text_vocabulary=300_000, text_layers=1)
    large = build(dataclasses.replace(tiny, clip=clip), CLASSES, seed=0).eval()
    write(make(), tmp_path / "1")
    write(large, tmp_path / "2", version=2, store_as=store_as)
    done = run(PEAK, tmp_path / "1", tmp_path / "2")
    assert done.returncode == 0, done.stderr
    peak, weights = map(int, done.stdout.split())
    assert weights > 70 << 20
    assert 0.9 < peak / weights < most


def test_a_file_cut_before_reading_is_told(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    write_tensors(path, {"a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-1])
    for mapped in (False, True):
        with pytest.raises(CheckpointError, match=f"{WEIGHTS} is no safetensors file, or is damaged"):
            read_tensors(path, mapped=mapped)
