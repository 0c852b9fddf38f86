"""Those who are sent away come back one after the other."""

from collections import Counter

from service.errors import QueueFullError
from service.scheduling.admission import Admission
from service.scheduling.deadline import Deadline
from service.scheduling.returns import Returns, whole


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_alone_waits_as_long_as_it_takes() -> None:
    assert Returns().after(0) == 1
    assert Returns().after(2.2) == 3
    assert Returns().after(1e12) == 120
    assert [whole(seconds) for seconds in (-1, 0, 1, 1.01, 119.5, 121)] == [1, 1, 1, 2, 120, 120]


def test_a_crowd_comes_back_spread_over_seconds() -> None:
    returns = Returns(Clock())
    told = Counter(returns.after(0.5) for _ in range(500))
    assert sorted(told) == [1, 2, 3, 4, 5]
    assert max(told.values()) <= 102  # a hundred a second, but for rounding


def test_nobody_waits_for_more_than_ten_seconds_of_others() -> None:
    """Also if the others never come back, but ask again and again."""
    clock = Clock()
    returns = Returns(clock)
    assert max(returns.after(0.5) for _ in range(10_000)) == 1 + 10
    clock.now += 10
    assert returns.after(0.5) == 1


def test_requests_that_are_done_sooner_are_asked_for_sooner() -> None:
    returns = Returns(Clock())
    told = Counter(returns.after(0.5, request_s=0.002) for _ in range(1500))  # moments of 1 ms
    assert set(told) == {1, 2}
    assert 998 <= told[1] <= 1002


def test_all_that_are_sent_away_for_want_of_places_are_spread() -> None:
    door = Admission(max_requests=1, max_pixels=1000, devices=1)
    told = []
    with door.admit() as ticket:
        ticket.reserve(3.0, Deadline(100), pixels=10)
        for _ in range(300):
            try:
                door.refuse_if_full()
            except QueueFullError as full:
                told.append(full.retry_after)
        assert door.retry_after() == 3  # what is said of the service itself stays as it is
    assert len(told) == 300
    assert min(told) == 3
    assert 5 <= max(told) <= 6
