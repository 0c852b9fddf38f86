"""Two processes under torchrun, with gloo, are one process with the whole batch, killed or not."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import ModelError
from tests.training.run.runs import CODE, ROOT, events, log_of, micro_run
from tests.waiting import LONG_WAIT
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.evaluation.evaluate import evaluate
from training.run.distributed import Processes, processes
from training.run.loss_module import start_model
from training.run.state import read_state
from training.run.trainer import train

CPU = torch.device("cpu")
# Processes of which each is killed before its sixth step.
KILLED = f"""
import os, signal
from training.run import trainer

take = trainer._Run._take_step

def step_or_die(run, *arguments):
    if run.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(run, *arguments)

trainer._Run._take_step = step_or_die
{CODE}"""


def weights(run: Path) -> dict[str, Tensor]:
    state = read_state(run)
    assert state is not None
    return state.part("model")


def evaluations(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_a_run_that_two_processes_take_over_until_they_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One begins, two go on, each with half of the batch in two parts, and die; one alone ends it."""
    config = micro_run(
        tmp_path,
        steps=7,
        batch=8,
        accumulate=2,
        val_split="val",
        ema=0.5,
        keep_best="miou_all",
        save_every=2,
        evaluate_every=2,
    )
    one, run = train(config, tmp_path / "one"), tmp_path / "run"
    train(config, run, max_steps=1)
    (tmp_path / "run.py").write_text(KILLED)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [str(tmp_path / "run.py"), json.dumps(config.to_dict()), str(run)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT)
    assert done.returncode == 1
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert [row["step"] for row in log_of(run)] == [1, 2, 3, 4, 5]
    state = read_state(run)
    assert state is not None
    assert state.step == 4
    assert [row["step"] for row in evaluations(run)] == [2, 4]
    assert json.loads((run / "checkpoint" / "metrics.json").read_text())["pictures"] == 6
    train(config, run)
    assert [row["step"] for row in log_of(run)] == [1, 2, 3, 4, 5, 6, 7]
    for found, wanted in zip(log_of(run), log_of(one), strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5 if wanted["step"] < 6 else 1e-4)
        assert found["gradient_norm"] == pytest.approx(wanted["gradient_norm"], rel=1e-3)
    told = events(run).Scalars("train/loss")
    assert [(point.step, pytest.approx(point.value)) for point in told] == [
        (row["step"], row["loss"]) for row in log_of(run)
    ]
    ours, theirs = weights(one), weights(run)
    for name, value in ours.items():
        assert (theirs[name] - value).abs().max() <= 1e-4, name
    ours_scored, theirs_scored = evaluations(one), evaluations(run)
    assert [row["step"] for row in theirs_scored] == [2, 4, 6, 7]
    for found, wanted in zip(theirs_scored, ours_scored, strict=True):
        assert found["pixel_accuracy"] == pytest.approx(wanted["pixel_accuracy"], abs=0.5)
    with pytest.raises(TrainingError, match="accumulate was 2, now 4; take another folder"):
        train(dataclasses.replace(config, accumulate=4), run)


def test_processes_share_the_pictures_of_an_evaluation(tmp_path: Path) -> None:
    """Their counts add up to one process's, to the last pixel."""
    config = micro_run(tmp_path)
    folder = SegmentationFolder(config.data, "val")
    ebseg, _ = start_model(config, folder.training_classes())
    shares: list[NDArray[np.int64]] = []

    def keep(counts: NDArray[np.int64]) -> NDArray[np.int64]:
        shares.append(counts.copy())
        return counts

    whole = evaluate(ebseg, folder, shown=False)
    for part in range(4):
        evaluate(ebseg, folder, shown=False, part=part, parts=4, over_all=keep)
    assert all(share.sum() > 0 for share in shares)
    assert np.array_equal(np.sum(shares, axis=0), whole.tally.vector())


def test_slots() -> None:
    team = [Processes(rank=rank, count=3, device=CPU) for rank in range(3)]
    assert [one.slots(12, 2) for one in team] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    assert [one.first for one in team] == [True, False, False]
    with pytest.raises(TrainingError, match="batch 16 cannot be shared by 3 processes in 1 parts each"):
        team[0].slots(16, 1)


def test_several_processes_take_no_single_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.is_torchelastic_launched", lambda: True)
    with pytest.raises(TrainingError, match="cuda:1 names one"), processes("cuda:1"):
        raise AssertionError


def test_a_device_that_is_not_here() -> None:
    with pytest.raises(ModelError, match="the device 'tpu' cannot be used"), processes("tpu"):
        raise AssertionError


def test_alone() -> None:
    with processes("cpu") as team:
        assert (team.rank, team.count, team.device) == (0, 1, CPU)
        team.wait()
        assert team.gathered("x") == ["x"]
        assert team.mean(torch.tensor([3.0])).tolist() == [3]
