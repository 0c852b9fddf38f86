"""Places, cost, and when to come back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.errors import (
    ClientGoneError,
    DeadlineExceededError,
    DeadlineUnmeetableError,
    QueueFullError,
    RetryableError,
)
from service.scheduling.admission import Admission, Ticket
from service.scheduling.deadline import Deadline

LONG = 1000.0


def admission(max_requests: int = 10, max_cost: int = 1000, devices: int = 1) -> Admission:
    return Admission(max_requests=max_requests, max_cost=max_cost, devices=devices)


def fill(door: Admission, stack: ExitStack, *costs: int) -> list[Ticket]:
    """Lets in requests of these costs, until the stack is left."""
    tickets = [stack.enter_context(door.admit()) for _ in costs]
    for ticket, cost in zip(tickets, costs, strict=True):
        ticket.reserve(cost, Deadline(LONG))
    return tickets


def refusal(door: Admission, cost: int, seconds: float = LONG) -> RetryableError:
    with pytest.raises(RetryableError) as raised, door.admit() as ticket:
        ticket.reserve(cost, Deadline(seconds))
    return raised.value


def failing(door: Admission) -> None:
    with door.admit() as ticket:
        ticket.reserve(10, Deadline(LONG))
        assert door.pending_cost == 100
        raise ValueError("work")


def test_places_are_bounded_and_given_back() -> None:
    door = admission(max_requests=1)
    with door.admit():
        assert door.pending == 1
        with pytest.raises(QueueFullError) as raised, door.admit():
            pytest.fail("there was no place")
        assert raised.value.retry_after == 1
        assert door.pending == 1
    with pytest.raises(ValueError, match="work"), door.admit():
        raise ValueError("work")
    assert door.pending == 0


def test_cost_is_bounded_and_given_back_as_reserved() -> None:
    door = admission(max_cost=100)
    with ExitStack() as stack:
        fill(door, stack, 60, 30)
        assert (door.pending, door.pending_cost) == (2, 90)
        assert isinstance(refusal(door, 11), QueueFullError)
        assert (door.pending, door.pending_cost) == (2, 90)
        with pytest.raises(ValueError, match="work"):
            failing(door)
        assert door.pending_cost == 90
    assert (door.pending, door.pending_cost) == (0, 0)


def test_a_request_larger_than_the_bound_is_let_in_alone() -> None:
    door = admission(max_cost=100)
    with ExitStack() as stack:
        fill(door, stack, 1)
        assert isinstance(refusal(door, 500), QueueFullError)
    with door.admit(), door.admit() as large:
        large.reserve(500, Deadline(LONG))
        assert door.pending_cost == 500
        assert isinstance(refusal(door, 1), QueueFullError)
        assert isinstance(refusal(door, 500), QueueFullError)
    assert door.pending_cost == 0


def test_a_ticket_may_reserve_in_parts_but_not_after_it_left() -> None:
    door = admission(max_cost=100)
    with door.admit() as ticket:
        ticket.reserve(70, Deadline(LONG))
        ticket.reserve(50, Deadline(LONG))  # alone, and so above the bound
        assert (ticket.cost, door.pending_cost) == (120, 120)
    with pytest.raises(ClientGoneError):
        ticket.reserve(1, Deadline(LONG))
    assert door.pending_cost == 0


def test_nobody_is_refused_by_estimate_before_a_measurement() -> None:
    door = admission(max_cost=10**9)
    with ExitStack() as stack:
        fill(door, stack, 10**8)
        fill(door, stack, 10**8)
        with door.admit() as ticket:
            ticket.reserve(10**8, Deadline(0.5))
    assert door.retry_after() == 1


def test_deadlines_that_the_queue_makes_impossible_are_refused() -> None:
    door = admission()
    door.served(100, 1.0)  # 0.01 s a pixel
    with ExitStack() as stack:
        fill(door, stack, 400, 200)  # 6 s
        refused = refusal(door, 100, seconds=3.5)
        assert isinstance(refused, DeadlineUnmeetableError)
        assert refused.retry_after == 4  # done in 7 s, or, when it comes back, in the last 3.5 s of them
        with door.admit() as ticket:
            ticket.reserve(100, Deadline(7.5))
        two = admission(devices=2)
        two.served(100, 1.0)
        fill(two, stack, 400, 200)
        assert isinstance(refusal(two, 100, seconds=3.0), DeadlineUnmeetableError)
        with two.admit() as ticket:
            ticket.reserve(100, Deadline(4.5))


def test_deadlines_that_are_impossible_alone_are_no_reason_to_come_back() -> None:
    door = admission()
    door.served(100, 1.0)
    with door.admit() as ticket:
        with pytest.raises(DeadlineExceededError, match=r"takes about 2.0 s, and 1.\d s are left"):
            ticket.reserve(200, Deadline(1.5))
        assert door.pending_cost == 0
        ticket.reserve(100, Deadline(1.5))
        with pytest.raises(DeadlineExceededError, match="is over"):
            ticket.reserve(1, Deadline(0))


def test_an_old_estimate_refuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    door = admission()
    door.served(1, 1000.0)  # a device that stumbled
    with door.admit() as ticket, pytest.raises(DeadlineExceededError):
        ticket.reserve(1, Deadline(20))
    later = time.monotonic() + 31
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with door.admit() as ticket:
        ticket.reserve(1, Deadline(20))


def test_retry_after_is_the_time_until_there_is_room() -> None:
    door = admission(max_requests=4, max_cost=1000)
    door.served(100, 1.0)
    assert door.retry_after() == 1  # there is room now
    with ExitStack() as stack:
        fill(door, stack, 300, 300, 300)
        assert refusal(door, 250).retry_after == 2  # 150 pixels too many
        assert refusal(door, 850).retry_after == 8
        fill(door, stack, 80)
        # no place: one of four has to leave, whose mean is 245 pixels
        with pytest.raises(QueueFullError) as raised, door.admit():
            pytest.fail("there was no place")
        assert raised.value.retry_after == 3
    with ExitStack() as stack:
        fill(door, stack, 650)
        assert refusal(door, 5000).retry_after == 7  # when all is done
    door.served(100, 1e9)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(door.admit()).reserve(250, Deadline(1e12))
        assert door.retry_after() == 120


def test_retry_after_is_about_right_for_a_device_that_works() -> None:
    """A device of 0.01 s a pixel, in seconds that the test counts."""
    door = admission(max_requests=100, max_cost=1000)
    door.served(50, 0.5)
    stacks = [ExitStack() for _ in range(10)]
    for stack in stacks:
        fill(door, stack, 100)
    waits = {cost: refusal(door, cost).retry_after for cost in (50, 150, 250, 650)}
    assert list(waits.values()) == [1, 2, 3, 7]
    for second, stack in enumerate(stacks, start=1):
        stack.close()  # 100 pixels are done
        for cost in [cost for cost, wait in waits.items() if wait == second]:
            with door.admit() as ticket:
                ticket.reserve(cost, Deadline(LONG))  # let in when it was told to come back
            waits.pop(cost)
        for cost, wait in waits.items():
            assert wait > second
            refusal(door, cost)  # and not before
    assert waits == {}


def test_the_rate_follows_measurements_and_large_batches_weigh_more() -> None:
    door = admission()
    for _ in range(200):
        door.served(100, 1.0)
        door.served(0, 5.0)  # a request that needed no predict tells nothing
    with ExitStack() as stack:
        fill(door, stack, 1000)
        assert refusal(door, 950).retry_after == 10
        for _ in range(200):
            door.served(800, 4.0)
        assert refusal(door, 950).retry_after == 5
        door.served(1, 0.5)
        assert refusal(door, 950).retry_after == 5  # 0.0051 s a pixel, not 0.05


def test_many_threads_leave_nothing_behind() -> None:
    door = admission(max_requests=6, max_cost=50)
    most = threading.Lock()
    seen: list[tuple[int, int]] = []

    def work(index: int) -> bool:
        try:
            with door.admit() as ticket:
                ticket.reserve(index % 20 + 1, Deadline(LONG))
                with most:
                    seen.append((door.pending, door.pending_cost))
                door.served(index % 7, 1e-6)
                if index % 3 == 0:
                    raise KeyError(index)
            return True
        except (QueueFullError, KeyError):
            return False

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(2000)))
    assert any(results)
    assert max(pending for pending, _ in seen) <= 6
    assert max(cost for _, cost in seen) <= 50
    assert (door.pending, door.pending_cost) == (0, 0)
