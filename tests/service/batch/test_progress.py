"""What is told of a run while it goes on."""

from threading import Event

import pytest

from service.batch.progress import RunProgress, progress_shown
from service.errors import UsageError
from tests.service.batch.runs import plan_of
from tests.waiting import wait_until


def test_rate_and_rest_leave_out_what_was_done_before() -> None:
    now = 100.0
    progress = RunProgress(clock=lambda: now)
    assert progress.line() == "0 images"
    progress.known(5_000)
    now += 30  # the model is loaded
    progress.done(10)
    assert progress.line() == "5,010 images"
    now += 10
    progress.done(50)
    assert progress.line() == "5,060 images, 5.0 images a second"
    progress.total = 23_060
    assert progress.line() == "5,060 of 23,060 images, 5.0 images a second, 1:00:00 left"
    progress.done(-40)  # a worker has died
    assert progress.line() == "5,020 of 23,060 images, 1.0 images a second, 5:00:40 left"


@pytest.mark.parametrize("terminal", [True, False])
def test_images_are_counted_beside_the_run(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.batch.progress.LINE_S", 0.0)
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    counted, ended = Event(), Event()

    def count(is_over: object) -> int:
        counted.set()
        return 7

    with progress_shown(count) as (done, known, _):
        assert counted.wait(10)
        known(3)
        done(1)

        def told() -> bool:
            done(1)
            return "of 7 images" in capsys.readouterr().err

        wait_until(told)  # what was counted is known a moment after it is

    def endless(is_over: object) -> None:
        assert callable(is_over)
        wait_until(is_over)
        ended.set()

    with progress_shown(endless):
        assert not ended.is_set()
    assert ended.wait(10)

    def missing(is_over: object) -> int:
        raise UsageError("there is no such input")

    with progress_shown(missing) as (done, _, _):
        done(1)  # the run itself tells


def test_why_a_run_waits_is_told_at_once_and_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with progress_shown(lambda is_over: None) as (done, _, waits):
        for why in ("busy", "busy", "away"):
            waits(why)
        done(-1)
        waits("away")
        done(3)
        waits("away")
    told = ["0 images; busy", "0 images; away", "2 images; away"]
    assert capsys.readouterr().err.splitlines() == told


def test_a_share_counts_its_own(tmp_path: object) -> None:
    plans = [plan_of(f"{tmp_path}/list.txt", f"{tmp_path}/out", "http://x", share=(k, 3)) for k in range(3)]
    with open(f"{tmp_path}/list.txt", "w", encoding="utf-8") as file:
        file.write("".join(f"{index}.png\n" for index in range(32)))
    for plan in plans:
        assert plan.count(lambda: False) == sum(len(shard) for _, shard in plan.shards())
    assert [plan.count(lambda: False) for plan in plans] == [12, 10, 10]
    assert plans[0].count(lambda: True) is None
