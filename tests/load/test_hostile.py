"""A pod of 2 GiB under attack, in short; `python -m tests.load.hostile` goes on for two minutes."""

import pytest

from tests.load import hostile
from tests.load.hostile import POD


@pytest.mark.slow
def test_a_small_pod_outlives_hostile_clients() -> None:
    report = hostile.run(20)
    assert report["violations"] == []
    assert report["good_answers"] >= 2
    statuses = report["statuses"]
    assert set(statuses["good"]) <= {"200", "429"}
    assert statuses["after"] == statuses["before"] == {"200": 3}
    for who in ("overlays of 48 megapixels", "tiny pictures blown up", "bombs"):
        assert set(statuses[who]) <= {"200", "400", "413", "429", "503", "504"}, who
    assert {"too-many-pixels", "malformed-request"} <= report["reasons"].keys()
    assert statuses["silence"]["closed"] >= 20
    assert statuses["stalled uploads"]["closed"] >= 8
    assert {"BrokenPipeError", "ConnectionResetError", "431"} & statuses["endless headers"].keys()
    assert report["memory_mb"]["peak"] < POD >> 20
