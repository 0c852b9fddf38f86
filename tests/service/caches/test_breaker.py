"""When a breaker opens, probes and closes."""

import pytest

from service.caches.breaker import Breaker, State
from tests.service.hot_loading.stores import Clock


def made(jitter: float = 0.5) -> tuple[Breaker, Clock, list[State]]:
    """A breaker whose back-offs are of nominal length, its clock, and the states it went through."""
    clock, states = Clock(), list[State]()
    return Breaker(on_change=states.append, clock=clock, jitter=lambda: jitter), clock, states


def opened(breaker: Breaker) -> None:
    for _ in range(3):
        breaker.failed()
    assert breaker.state is State.OPEN


def test_opens_after_three_failures_in_a_row() -> None:
    breaker, _, states = made()
    breaker.failed()
    breaker.failed()
    assert breaker.closed
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.closed
    assert states == []
    breaker.failed()
    assert not breaker.closed
    assert states == [State.OPEN]


def test_one_probe_after_the_back_off() -> None:
    breaker, clock, states = made()
    opened(breaker)
    assert breaker.probe_in() == pytest.approx(1)
    assert not breaker.begin_probe()
    clock.now += 0.99
    assert not breaker.begin_probe()
    clock.now += 0.02
    assert breaker.probe_in() == 0
    assert breaker.begin_probe()
    assert not breaker.begin_probe()
    assert not breaker.closed
    breaker.end_probe(True)
    assert breaker.closed
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_back_off_doubles_to_thirty_seconds() -> None:
    breaker, clock, _ = made()
    opened(breaker)
    waits = []
    for _ in range(7):
        waits.append(breaker.probe_in())
        clock.now += waits[-1]
        assert breaker.begin_probe()
        breaker.end_probe(False)
    assert waits == pytest.approx([1, 2, 4, 8, 16, 30, 30])


def test_back_off_stays_finite_after_very_many_openings() -> None:
    breaker, clock, _ = made()
    opened(breaker)
    for _ in range(2000):
        clock.now += breaker.probe_in()
        assert breaker.begin_probe()
        breaker.end_probe(False)
    assert breaker.probe_in() == pytest.approx(30)


@pytest.mark.parametrize(("jitter", "expected"), [(0.0, 0.8), (1.0, 1.2)])
def test_back_off_is_jittered(jitter: float, expected: float) -> None:
    breaker, _, _ = made(jitter)
    opened(breaker)
    assert breaker.probe_in() == pytest.approx(expected)


def test_only_an_ordinary_success_shortens_the_back_off_again() -> None:
    breaker, clock, _ = made()
    waits = []
    for _ in range(3):  # a server that answers probes and nothing else
        opened(breaker)
        waits.append(breaker.probe_in())
        clock.now += waits[-1]
        assert breaker.begin_probe()
        breaker.end_probe(True)
    assert waits == pytest.approx([1, 2, 4])
    breaker.succeeded()
    opened(breaker)
    assert breaker.probe_in() == pytest.approx(1)


def test_answers_to_older_requests_change_nothing() -> None:
    breaker, clock, states = made()
    opened(breaker)
    breaker.succeeded()
    breaker.failed()
    assert breaker.state is State.OPEN
    assert breaker.probe_in() == pytest.approx(1)
    clock.now += 1
    assert breaker.begin_probe()
    breaker.succeeded()
    breaker.failed()
    assert states == [State.OPEN, State.HALF_OPEN]
    breaker.end_probe(True)
    breaker.failed()
    breaker.failed()
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_probe_that_was_not_begun_cannot_end() -> None:
    breaker, _, _ = made()
    with pytest.raises(RuntimeError, match="without begin_probe"):
        breaker.end_probe(True)
