"""`python -m tests.load.offline` in short: rows, a kill and memory; its rates would need idle cores."""

import json
import sys

import pytest

from tests.load import offline, offline_rates


@pytest.mark.slow
def test_a_run_that_is_killed_has_the_rows_of_ebseg_segment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["offline", "--pictures", "80", "--rated", "96", "--paths", "3000"])
    monkeypatch.setattr(offline_rates, "LEAST_OF_ENGINE", 0.0)
    monkeypatch.setattr(offline_rates, "LEAST_OF_TWO", 0.0)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest's own stays
    code = offline.main()
    report = json.loads(capsys.readouterr().out)
    assert (code, report["violations"]) == (0, [])
    assert (report["pictures"], report["broken"], report["errors"], report["shards"]) == (80, 1, 1, 3)
    assert 1 <= report["finished_when_killed"] <= report["shards"]
    assert report["rated"] == 96
    assert min(report["pictures_per_second"].values()) > 0
