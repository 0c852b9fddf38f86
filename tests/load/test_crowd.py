"""The crowd of `python -m tests.load.crowd` in short: places are few, and everybody gets an answer."""

import json
import sys

import pytest

from tests.load import crowd


def test_a_crowd_is_answered_or_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "LAG_WINDOW_S", 0.0)
    words = ["crowd", "--clients", "40", "--seconds", "2", "--max-pending", "2"]
    monkeypatch.setattr(sys, "argv", words)
    assert crowd.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == {}
    assert set(report["answers"]) == {"200", "429"}
    for seen in report["answers"].values():
        assert 0 < seen["p50"] <= seen["p99"]
        assert 0 <= seen["within_server"]["p99"] <= seen["p99"]
    assert report["answers"]["429"]["number"] >= 20  # most of the first round
    assert report["server_seconds_an_answer"] > 0
    lag = report["event_loop_lag_seconds"]
    assert lag["looks"] >= 1
    assert 0 <= lag["p50"] <= lag["p99"]
