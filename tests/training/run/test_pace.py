"""Pictures a second, waits for data, memory, fraction of the peak, by a clock that the test puts forward."""

import types
from pathlib import Path

import pytest
import torch

from model import TrainingClasses
from model.network.build import build
from tests.training.run.runs import log_of, micro_config, micro_run
from training.progress import Bar
from training.run import pace
from training.run.pace import Pace, forward_flops, peak_share
from training.run.trainer import train

CPU = torch.device("cpu")


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


def test_what_is_no_training_does_not_count(clock: Clock) -> None:
    found = Pace(8, CPU, 0.01)
    assert found.rate == 0
    with found.waiting():
        clock.now += 1
    clock.now += 3
    found.step()
    assert found.rate == 2  # before the first line of the log, too
    with found.away():
        clock.now += 1000
    figures = found.figures()
    assert figures.pop("memory_gib") > 0.05
    assert figures == {"rate": 2.0, "data_wait": 0.25, "of_peak": 0.02}
    assert found.rate == 2
    clock.now += 1
    for _ in range(2):
        found.step()
    assert found.figures()["rate"] == 16
    assert "of_peak" not in Pace(8, CPU).figures()


def test_a_card_with_a_data_sheet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ebseg = build(micro_config(), TrainingClasses.of(["red"]), seed=0)
    config = micro_run(tmp_path)
    assert peak_share(ebseg, config, 1) is None  # a CPU has none
    monkeypatch.setattr(type(ebseg), "device", types.SimpleNamespace(type="cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-40GB")
    monkeypatch.setattr(pace, "forward_flops", lambda ebseg, side: 1e12 if side == config.crop else 0)
    assert peak_share(ebseg, config, 1) == pytest.approx(3 / 19.5)
    assert peak_share(ebseg, micro_run(tmp_path, amp="float16"), 2) == pytest.approx(3 / 624)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Another card")
    assert peak_share(ebseg, config, 1) is None


def test_operations_are_counted() -> None:
    ebseg = build(micro_config(), TrainingClasses.of(["red"]), seed=0)
    assert forward_flops(ebseg, 64, 2) == pytest.approx(2 * forward_flops(ebseg, 64), rel=0.02)


def test_a_rate_is_shown_from_the_first_step_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float] = []
    advance = Bar.advance

    def seen(bar: Bar, count: int = 1, **values: float) -> None:
        if "images/s" in values:
            shown.append(values["images/s"])
        advance(bar, count, **values)

    monkeypatch.setattr(Bar, "advance", seen)
    train(micro_run(tmp_path, steps=3, log_every=100), tmp_path / "run")
    assert len(shown) == 3
    assert all(rate > 0 for rate in shown)
    (line,) = log_of(tmp_path / "run")
    assert line["rate"] > 0
    assert 0 <= line["data_wait"] <= 1
    assert line["memory_gib"] > 0.05
