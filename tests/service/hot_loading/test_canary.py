"""A canary's share of the requests, and when its trial ends."""

import itertools

import pytest

from service.hot_loading.canary import (
    EARLY_FAILURES,
    EARLY_S,
    EARLY_TIMES,
    EARLY_TIMES_S,
    LEAST_FAILURES,
    LEAST_TIMES,
    AnswerResult,
    Trial,
)
from tests.service.hot_loading.stores import Clock


@pytest.mark.parametrize("percent", [1, 10, 33, 50, 99, 100])
def test_share_is_exact_and_even(percent: int) -> None:
    trial = Trial(percent=percent, needed=1000)
    chosen = [trial.next_is_canary() for _ in range(1000)]
    assert sum(chosen) == 10 * percent
    for start in range(0, 1000, 100):
        assert sum(chosen[start : start + 100]) == percent
    places = [place for place, canary in enumerate(chosen) if canary]
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert max(gaps) - min(gaps) <= 1


def test_enough_good_answers_promote() -> None:
    trial = Trial(percent=10, needed=3)
    assert [trial.count("good", canary=True) for _ in range(3)] == [None, None, "promote"]


def test_the_current_versions_answers_settle_nothing() -> None:
    trial = Trial(percent=10, needed=1)
    assert {trial.count("good" if ok else "failed", canary=False) for ok in (True, False) * 50} == {None}


def test_few_failures_may_be_chance() -> None:
    trial = Trial(percent=50, needed=100)
    verdicts = [trial.count("failed", canary=True) for _ in range(LEAST_FAILURES)]
    assert verdicts == [None] * (LEAST_FAILURES - 1) + ["fall back"]
    assert str(trial) == "5 of 5 requests failed; of the version beside it 0 of 0 requests failed"


@pytest.mark.parametrize(
    ("current_failures", "good", "result"),
    [
        (0, 94, "fall back"),  # 5 of 99 is more than 5 %
        (0, 95, None),  # 5 of 100 is not
        (10, 15, None),  # beside 10 % failing, 5 of 20 is not more than 2 x 10 % + 5 %
        (10, 14, "fall back"),
        (60, 0, None),  # never above 125 %
    ],
)
def test_failures_are_compared_with_the_version_beside(
    current_failures: int, good: int, result: str | None
) -> None:
    trial = Trial(percent=50, needed=1000)
    for i in range(100):
        trial.count("good" if i >= current_failures else "failed", canary=False)
    for _ in range(good):
        trial.count("good", canary=True)
    assert [trial.count("failed", canary=True) for _ in range(5)][-1] == result


@pytest.mark.parametrize("result", ["failed", "memory", "late"])
def test_every_kind_of_failure_counts(result: AnswerResult) -> None:
    trial = Trial(percent=50, needed=100)
    settled = [trial.count(result, canary=True) for _ in range(LEAST_FAILURES)]
    assert settled == [None] * (LEAST_FAILURES - 1) + ["fall back"]


def test_the_reason_names_the_kinds() -> None:
    trial = Trial(percent=50, needed=100)
    for result in ("good", "memory", "memory", "late"):
        trial.count(result, canary=True)
    reported = "3 of 4 requests failed (2 for want of memory, 1 being too late)"
    assert str(trial) == f"{reported}; of the version beside it 0 of 0 requests failed"


def test_with_little_traffic_fewer_failures_do_if_nothing_is_good() -> None:
    for good, expected in ((0, "fall back"), (1, None)):
        clock = Clock()
        trial = Trial(percent=50, needed=100, clock=clock)
        for _ in range(good):
            trial.count("good", canary=True)
        for _ in range(EARLY_FAILURES):
            assert trial.count("memory", canary=True) is None
        clock.now += EARLY_S
        assert trial.count("memory", canary=True) == expected


def times(trial: Trial, number: int, seconds: float, *, canary: bool) -> list[str | None]:
    return [trial.count("good", canary=canary, seconds=seconds) for _ in range(number)]


@pytest.mark.parametrize(("seconds", "expected"), [(0.9, None), (5.0, "fall back")])
def test_a_canary_that_is_slower_by_the_factor_falls_back(seconds: float, expected: str | None) -> None:
    trial = Trial(percent=50, needed=1000, slowdown=2.0)
    times(trial, LEAST_TIMES, 0.5, canary=False)
    assert times(trial, LEAST_TIMES, seconds, canary=True)[-1] == expected
    if expected:
        assert str(trial).endswith("; 95 % took up to 5 s, beside 0.5 s")


def test_one_slow_answer_in_a_hundred_settles_nothing() -> None:
    trial = Trial(percent=50, needed=1000)
    times(trial, 100, 0.5, canary=False)
    settled = [trial.count("good", canary=True, seconds=60.0 if i == 99 else 0.5) for i in range(100)]
    assert set(settled) == {None}


def test_milliseconds_that_nobody_feels_settle_nothing() -> None:
    trial = Trial(percent=50, needed=1000)
    times(trial, 50, 0.001, canary=False)
    assert set(times(trial, 50, 0.01, canary=True)) == {None}


def test_with_little_traffic_medians_are_compared_after_a_while() -> None:
    clock = Clock()
    trial = Trial(percent=50, needed=100, clock=clock)
    times(trial, EARLY_TIMES, 0.2, canary=False)
    assert set(times(trial, EARLY_TIMES, 1.0, canary=True)) == {None}
    clock.now += EARLY_TIMES_S
    assert times(trial, 1, 1.0, canary=True) == ["fall back"]


@pytest.mark.parametrize(
    ("good", "failed", "beside", "expected"),
    [
        (0, 0, (0, 0), "promote"),  # nobody wanted anything: nothing speaks against it
        (3, 3, (0, 0), "fall back"),
        (3, 3, (100, 0), "fall back"),
        (10, 2, (100, 0), "fall back"),  # 17 % beside none
        (39, 2, (100, 0), "promote"),  # less than 5 %
        (3, 1, (100, 0), "promote"),  # one failure may be chance
        (1, 1, (100, 0), "fall back"),  # but not if it is half of all
        (0, 1, (0, 0), "fall back"),
        (3, 3, (50, 50), "promote"),  # the version that serves fails as often
        (6, 4, (80, 20), "promote"),
        (4, 4, (80, 20), "fall back"),  # 50 % are more than 2 x 20 % + 5 %
    ],
)
@pytest.mark.parametrize("kind", ["failed", "memory", "late"])
def test_the_end_of_its_time_settles_every_trial_by_the_same_measures(
    kind: AnswerResult, good: int, failed: int, beside: tuple[int, int], expected: str
) -> None:
    trial = Trial(percent=50, needed=100)
    for canary, result, number in (
        (False, "good", beside[0]),
        (False, "failed", beside[1]),
        (True, "good", good),
        (True, kind, failed),
    ):
        for _ in range(number):
            assert trial.count(result, canary=canary) is None  # type: ignore[arg-type]
    assert trial.at_end() == expected


@pytest.mark.parametrize(
    ("own", "beside", "slow", "expected"),
    [
        (2, 50, 5.0, "promote"),  # too few to compare
        (50, 2, 5.0, "promote"),
        (3, 3, 5.0, "fall back"),
        (3, 3, 0.9, "promote"),  # not by the factor
    ],
)
def test_a_slow_one_does_not_take_over_at_the_end_of_its_time(
    own: int, beside: int, slow: float, expected: str
) -> None:
    trial = Trial(percent=50, needed=100, slowdown=2.0, clock=Clock())
    times(trial, beside, 0.5, canary=False)
    assert set(times(trial, own, slow, canary=True)) == {None}
    assert trial.at_end() == expected


def test_enough_good_answers_are_not_enough_beside_failures_or_when_slow() -> None:
    trial = Trial(percent=50, needed=4)
    results: list[AnswerResult] = ["good", "failed", "good", "failed", "good", "failed", "good"]
    assert [trial.count(result, canary=True) for result in results][-1] == "fall back"
    trial = Trial(percent=50, needed=4, clock=Clock())
    times(trial, 4, 0.2, canary=False)
    assert times(trial, 4, 1.0, canary=True) == [None, None, None, "fall back"]
    assert str(trial).endswith("; 50 % took up to 1 s, beside 0.2 s")
