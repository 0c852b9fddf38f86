"""A canary's share of the requests, and when its trial ends."""

import itertools

import pytest

from service.hot_loading.canary import LEAST_FAILURES, Trial


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
    assert [trial.count(True, canary=True) for _ in range(3)] == [None, None, "promote"]


def test_the_current_versions_answers_settle_nothing() -> None:
    trial = Trial(percent=10, needed=1)
    assert {trial.count(ok, canary=False) for ok in (True, False) * 50} == {None}


def test_few_failures_may_be_chance() -> None:
    trial = Trial(percent=50, needed=100)
    verdicts = [trial.count(False, canary=True) for _ in range(LEAST_FAILURES)]
    assert verdicts == [None] * (LEAST_FAILURES - 1) + ["fall back"]
    assert str(trial) == "5 of 5 requests failed; of the version beside it 0 of 0 requests failed"


@pytest.mark.parametrize(
    ("current_failures", "good", "verdict"),
    [
        (0, 94, "fall back"),  # 5 of 99 is more than 5 %
        (0, 95, None),  # 5 of 100 is not
        (10, 15, None),  # beside 10 % failing, 5 of 20 is not more than 2 x 10 % + 5 %
        (10, 14, "fall back"),
        (60, 0, None),  # never above 125 %
    ],
)
def test_failures_are_compared_with_the_version_beside(
    current_failures: int, good: int, verdict: str | None
) -> None:
    trial = Trial(percent=50, needed=1000)
    for i in range(100):
        trial.count(i >= current_failures, canary=False)
    for _ in range(good):
        trial.count(True, canary=True)
    assert [trial.count(False, canary=True) for _ in range(5)][-1] == verdict
