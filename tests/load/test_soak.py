"""The soak of `python -m tests.load` in short: a real server and Redis, every answer compared."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.storage.packaged import packaged_checkpoint
from tests.load import __main__ as command
from tests.load.faulty import Faults, FaultyEngine
from tests.load.judge import Alone, Asked, Judge
from tests.load.run import Plan, run
from tests.load.versions import first_number
from tests.load.workload import Workload
from tests.service.fakes import FakeEngine, picture
from tests.waiting import WAIT, wait_until

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
    "slow canary": "model_loads rolled_back",
    "device hangs": "livez and readyz 503",
    "device hangs for good": "exit code",
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


def npy(labels: NDArray[np.uint16]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, labels)
    return buffer.getvalue()


def test_the_judge_tells_wrong_answers_from_right_ones() -> None:
    workload, first = Workload(["sky", "grass", "house", "tree", "car", "tent", *map(str, range(20))], 0), 1
    alone = Alone(packaged_checkpoint(), workload)
    right = alone.label_map(2, workload.vocabularies[1]).labels
    wrong = right.copy()
    wrong[7, 9] = right[7, 9] % 2 + 1
    judge = Judge(workload)
    for _ in range(3):
        assert judge.keep(Asked(first, 2, 1, "npy"), npy(right), "id") is None
    assert judge.findings({first: packaged_checkpoint()}).complaints == []
    judge.keep(Asked(first, 2, 1, "npy"), npy(wrong), "id")
    judge.keep(Asked(first, 2, 4, "npy"), npy(right), "id")  # another request's answer
    judge.keep(Asked(9, 2, 1, "npy"), npy(right), "id")  # a version that must not answer
    findings = judge.findings({first: packaged_checkpoint()})
    assert (findings.answers, findings.distinct, len(findings.complaints)) == (5, 3, 3)
    assert findings.wrong_pixels > 1
    assert "1 of 90000 labels are wrong" in findings.complaints[0]
    assert "version 9 answered, and must not" in findings.complaints[2]


def test_a_faulty_engine_is_slow_and_hangs_as_its_files_say(tmp_path: Path) -> None:
    faults, own = Faults(tmp_path / "faults"), FakeEngine(seconds=0.05)
    engine = FaultyEngine(own, faults)
    prepared = [engine.prepare(picture())]
    faults.slow(own.info.version).write_text("4")
    began = time.monotonic()
    (made,) = engine.predict(prepared)
    assert time.monotonic() - began >= 0.2
    assert (made.nbytes, own.batches) == (own.predict(prepared)[0].nbytes, [1, 1])
    faults.slow(own.info.version).unlink()
    faults.slow(own.info.version + 1).write_text("1000000")  # another version's
    faults.hang.touch()
    with ThreadPoolExecutor(1) as device:
        asked = device.submit(engine.predict, prepared)
        wait_until(lambda: len(own.batches) == 3)
        assert not asked.done()
        faults.hang.unlink()
        assert len(asked.result(WAIT)) == 1


@pytest.mark.parametrize(("violations", "code"), [([], 0), (["memory grew"], 1)])
def test_the_command_prints_one_document_and_its_exit_code_tells_of_violations(
    violations: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[Plan] = []

    def noted(plan: Plan) -> dict[str, Any]:
        plans.append(plan)
        return {"violations": violations}

    monkeypatch.setattr(command, "run", noted)
    monkeypatch.setattr("sys.argv", ["soak", "--seconds", "5", "--clients", "3", "--chaos"])
    assert command.main() == code
    assert json.loads(capsys.readouterr().out) == {"violations": violations}
    assert plans == [Plan(seconds=5, clients=3, chaos=True)]


def test_every_answer_under_load_is_the_one_that_the_picture_gets_alone() -> None:
    report = checked(run(Plan(seconds=4, requests=8 * CLIENTS, clients=CLIENTS, check_memory=False)))
    assert report["cache_ops"]["text/l1/embedded"] > 50  # unseen classes kept coming
    assert report["cache_ops"]["prediction/l1/hit"] > 0
    assert report["mean_batch"] == 1  # what a CPU is given
    assert list(report["answers_by_version"]) == [str(first_number())]


@pytest.mark.slow
def test_no_wrong_answer_whatever_happens_to_redis_registry_clients_and_pictures() -> None:
    plan = Plan(seconds=0, clients=CLIENTS, chaos=True, registry_poll_s=0.5, check_memory=False)
    report = checked(run(plan))
    faults = {event["fault"]: event for event in report["faults"]}
    for fault, sign in WITH_FAULTS.items():
        assert sign in faults[fault], fault
    assert set(report["poison_statuses"]) <= {"400", "413", "415"}
    assert report["cancelled"] > 0
    first = first_number()
    assert list(report["answers_by_version"]) == [str(first + at) for at in (0, 1, 6, 7)]
