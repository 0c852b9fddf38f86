"""`python -m tests.load.offline` in short: rows, a kill and memory; its rates would need idle cores."""

import json
import sys

import pytest

from tests.load import offline


@pytest.mark.slow
def test_a_run_that_is_killed_has_the_rows_of_ebseg_segment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["offline", "--pictures", "80", "--paths", "3000"])
    monkeypatch.setattr(offline, "LEAST_OF_ENGINE", 0.0)
    monkeypatch.setattr(offline, "LEAST_OF_TWO", 0.0)
    assert offline.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["pictures"], report["broken"], report["violations"]) == (80, 1, [])
    assert report["finished_when_killed"] in (16, 32, 48, 64, 80)
    assert min(report["pictures_per_second"].values()) > 0
