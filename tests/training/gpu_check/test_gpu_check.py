"""The check for machines with a GPU: its whole plan on the pretended one, and what it says without one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from model.bench.gpu_card import CheckedDevice, card_here
from tests.pretended import counted, pretended_device
from training.gpu_check import checks
from training.gpu_check.__main__ import NO_CARD, main
from training.gpu_check.checks import CHECKS

QUICK = ["--side", "64", "--batches", "1,2", "--soak", "0"]


class PretendedCard:
    """Its waits are those that the pretended device counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def describe(self) -> dict[str, Any]:
        return {"name": "pretended"}

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        found: list[str] = []
        with counted() as counts:
            yield found
        found += counts.waits

    def settle(self) -> None:
        pass

    def memory(self) -> dict[str, int]:
        return {"bytes": 0, "peak_bytes": 0}

    def watts(self) -> float | None:
        return None


@pytest.fixture
def card() -> Iterator[CheckedDevice]:
    with pretended_device() as device:
        yield PretendedCard(device)


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_whole_plan(
    card: CheckedDevice, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "PRODUCT_SIDE", 128)  # half precision is slow on a CPU
    code = main(QUICK, lambda: card)
    report = report_of(capsys)
    assert {name: report[name]["passed"] for name in CHECKS} == dict.fromkeys(CHECKS, True), report
    assert (code, report["passed"]) == (0, True)
    assert report["card"] == {"name": "pretended"}
    assert {name: report["waits"][name]["waits"] for name in checks.MOST_WAITS} == {
        "predict": 0,
        "label maps": 1,
        "training step": 2,
    }
    assert set(report["parity"]) == {"passed", "took_s", "float32", "bfloat16", "float16"}
    assert report["speed"]["batch 2"]["pictures_per_second"] > 0
    assert report["golden"]["largest_relative_error"] <= report["golden"]["allowed"]


def test_what_fails_is_told_and_the_rest_runs(
    card: CheckedDevice, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: object) -> dict[str, Any]:
        raise RuntimeError("the card fell out")

    quick = {"waits": CHECKS["waits"], "broken": broken, "soak": CHECKS["soak"]}
    monkeypatch.setattr(checks, "CHECKS", quick)
    monkeypatch.setitem(checks.MOST_WAITS, "label maps", 0)
    assert main(QUICK, lambda: card) == 1
    report = report_of(capsys)
    assert not report["passed"]
    assert not report["waits"]["passed"]
    assert len(report["waits"]["label maps"]["where"]) == 1
    assert report["broken"]["error"] == "RuntimeError: the card fell out"
    assert report["soak"]["passed"]


def test_without_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded, and a sentence says why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert card_here() is None
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.strip() == NO_CARD
