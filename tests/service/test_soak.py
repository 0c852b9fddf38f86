"""The soak of `python -m tests.e2e.soak` in short: a real server and Redis, every answer compared."""

from typing import Any

from tests.e2e.soak.run import Plan, run

CLIENTS = 16
WITH_FAULTS = {
    "redis killed": "cache_ops text l2 skipped",
    "redis frozen": "cache_ops text l2 timeout",
    "redis filled with garbage": "cache_ops text l2 corrupt",
    "good version": "model_loads loaded",
    "bad version: flipped byte": "model_loads quarantined",
    "bad version: NaN weights": "model_loads quarantined",
    "bad version: wrong shape": "model_loads quarantined",
    "bad version: wrong results": "model_loads quarantined",
    "good version after bad ones": "model_loads loaded",
    "clients gone, and poison": "requests /v1/segment 499",
}


def checked(report: dict[str, Any]) -> dict[str, Any]:
    """What holds for every run."""
    assert report["violations"] == []
    assert set(report["statuses"]) == {"200"}
    assert report["compared"] >= report["requests"] >= CLIENTS
    assert report["wrong_pixels"] == 0
    assert report["differing_pixels"] < report["pixels"] / 10_000
    assert report["largest_confidence_error"] < 1e-4
    return report


def test_every_answer_under_load_is_the_one_that_the_picture_gets_alone() -> None:
    report = checked(run(Plan(seconds=4, clients=CLIENTS, check_memory=False)))
    assert report["cache_ops"]["text/l1/embedded"] > 50  # unseen classes kept coming
    assert report["cache_ops"]["prediction/l1/hit"] > 0
    assert report["mean_batch"] > 1
    assert list(report["answers_by_version"]) == ["1"]


def test_no_wrong_answer_whatever_happens_to_redis_registry_clients_and_pictures() -> None:
    report = checked(run(Plan(seconds=0, clients=CLIENTS, chaos=True, registry_poll_s=0.5)))
    faults = {event["fault"]: event for event in report["faults"]}
    for fault, sign in WITH_FAULTS.items():
        assert sign in faults[fault], fault
    assert set(report["poison_statuses"]) <= {"400", "413", "415"}
    assert report["cancelled"] > 0
    assert list(report["answers_by_version"]) == ["1", "2", "7"]
