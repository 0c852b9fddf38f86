"""Training on the pretended accelerator: how often a step waits for it, and that it learns the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from model import VARIANTS, TrainingClasses
from model.network.build import build
from tests.pretended import Counts, counted, pretended_device
from tests.training.run.runs import log_of, micro_run
from training.config import Amp
from training.run import trainer
from training.run.distributed import Processes
from training.run.trainer import train

MOST_WAITS = 4  # the matcher's costs, float16's overflow, the gradient's norm, the loss's terms


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


def train_on(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[Counts]:
    """From here on runs compute on a device; what each step made it wait for."""
    steps: list[Counts] = []
    take_step = trainer._Run._take_step

    @contextmanager
    def alone(_: str) -> Iterator[Processes]:
        yield Processes(rank=0, count=1, device=device)

    def counted_step(*args: Any) -> Any:
        with counted() as counts:
            taken = take_step(*args)
        steps.append(counts)
        return taken

    monkeypatch.setattr(trainer, "processes", alone)
    monkeypatch.setattr(trainer._Run, "_take_step", counted_step)
    return steps


@pytest.mark.parametrize("amp", ["off", "bfloat16", "float16"])
def test_steps_wait_four_times_at_most(
    amp: Amp, tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their losses are those of the same run on a CPU."""
    config = micro_run(tmp_path, steps=3, amp=amp, ema=0.5)
    wanted = [line["loss"] for line in log_of(train(config, tmp_path / "cpu"))]
    steps = train_on(device, monkeypatch)
    found = [line["loss"] for line in log_of(train(config, tmp_path / "device"))]
    assert len(steps) == 3
    assert all(len(step.waits) <= MOST_WAITS for step in steps), steps
    assert found == pytest.approx(wanted, rel=1e-4 if amp == "off" else 0.05)


@pytest.mark.parametrize("variant", ["tiny", "tiny-swin-t"])
def test_a_step_of_every_kind_of_model(
    variant: str, tmp_path: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = train_on(device, monkeypatch)
    model = build(VARIANTS[variant], TrainingClasses.of(["a"]), seed=0)
    run = train(micro_run(tmp_path, steps=1), tmp_path / "run", model=model)
    assert len(log_of(run)) == 1
    assert len(steps[0].waits) <= MOST_WAITS, steps
