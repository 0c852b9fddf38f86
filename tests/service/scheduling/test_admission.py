"""Places, cost, and when to come back."""

import threading
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


def admission(
    max_requests: int = 10,
    max_pixels: int = 1000,
    devices: int = 1,
    *,
    trusted: bool = True,
    ahead: float = 0.0,
) -> Admission:
    return Admission(
        max_requests=max_requests,
        max_pixels=max_pixels,
        devices=devices,
        trusted=lambda: trusted,
        ahead=lambda: ahead,
    )


def reserve(ticket: Ticket, pixels: int, seconds: float = LONG, *, rate: float = 0.01) -> None:
    """As a picture of so many pixels does, where a pixel is expected to take 0.01 s."""
    ticket.reserve(pixels * rate, Deadline(seconds), pixels=pixels)


def fill(door: Admission, stack: ExitStack, *pixels: int) -> list[Ticket]:
    """Lets in requests of these pixels, until the stack is left."""
    tickets = [stack.enter_context(door.admit()) for _ in pixels]
    for ticket, count in zip(tickets, pixels, strict=True):
        reserve(ticket, count)
    return tickets


def refusal(door: Admission, pixels: int, seconds: float = LONG) -> RetryableError:
    with pytest.raises(RetryableError) as raised, door.admit() as ticket:
        reserve(ticket, pixels, seconds)
    return raised.value


def failing(door: Admission) -> None:
    with door.admit() as ticket:
        reserve(ticket, 10)
        assert door.pending_pixels == 100
        raise ValueError("work")


def test_places_are_bounded_and_given_back() -> None:
    door = admission(max_requests=1)
    with door.admit():
        assert door.pending == 1
        with pytest.raises(QueueFullError) as raised, door.admit():
            pytest.fail("there was no place")
        assert raised.value.retry_after == 1
        with pytest.raises(QueueFullError):
            door.refuse_if_full()
        assert door.pending == 1
    with pytest.raises(ValueError, match="work"), door.admit():
        raise ValueError("work")
    door.refuse_if_full()
    assert door.pending == 0


def test_pixels_are_bounded_and_given_back_as_reserved() -> None:
    door = admission(max_pixels=100)
    with ExitStack() as stack:
        fill(door, stack, 60, 30)
        assert (door.pending, door.pending_pixels) == (2, 90)
        assert isinstance(refusal(door, 11), QueueFullError)
        assert (door.pending, door.pending_pixels) == (2, 90)
        with pytest.raises(ValueError, match="work"):
            failing(door)
        assert door.pending_pixels == 90
        assert door.pending_seconds == pytest.approx(0.9)
    assert (door.pending, door.pending_pixels, door.pending_seconds) == (0, 0, 0)


def test_devices_parts_are_given_back_before_the_place() -> None:
    door = admission(max_pixels=100)
    with door.admit() as ticket:
        reserve(ticket, 100)
        ticket.computed()
        assert (door.pending, door.pending_pixels, door.pending_seconds) == (1, 0, 0)
        ticket.computed()
    assert (door.pending, door.pending_pixels, door.pending_seconds) == (0, 0, 0)


def test_a_picture_larger_than_the_bound_is_let_in_alone() -> None:
    door = admission(max_pixels=100)
    with ExitStack() as stack:
        fill(door, stack, 1)
        assert isinstance(refusal(door, 500), QueueFullError)
    with door.admit(), door.admit() as large:
        reserve(large, 500)
        assert door.pending_pixels == 500
        assert isinstance(refusal(door, 1), QueueFullError)
        assert isinstance(refusal(door, 500), QueueFullError)
    assert door.pending_pixels == 0


def test_a_ticket_may_reserve_in_parts_but_not_after_it_left() -> None:
    door = admission(max_pixels=100)
    with door.admit() as ticket:
        reserve(ticket, 70)
        reserve(ticket, 50)  # alone, and so above the bound
        ticket.reserve(3.0, Deadline(LONG))  # new class names
        assert (ticket.pixels, door.pending_pixels) == (120, 120)
        assert door.pending_seconds == pytest.approx(4.2)
        assert door.expected_seconds == pytest.approx(4.2)
    with pytest.raises(ClientGoneError):
        reserve(ticket, 1)
    assert door.pending_pixels == 0


def test_nobody_is_refused_by_prices_that_are_not_trusted() -> None:
    door = admission(max_pixels=10**9, trusted=False)
    with ExitStack() as stack:
        fill(door, stack, 10**4, 10**4)
        with door.admit() as ticket:
            reserve(ticket, 10**4, 0.5)
    assert door.retry_after() == 1


def test_deadlines_that_the_queue_makes_impossible_are_refused() -> None:
    door = admission()
    with ExitStack() as stack:
        fill(door, stack, 400, 200)  # 6 s
        refused = refusal(door, 100, seconds=3.5)
        assert isinstance(refused, DeadlineUnmeetableError)
        assert refused.retry_after == 4  # done in 7 s, or, when it comes back, in the last 3.5 s of them
        with door.admit() as ticket:
            reserve(ticket, 100, 7.5)
        two = admission(devices=2)
        fill(two, stack, 400, 200)
        assert isinstance(refusal(two, 100, seconds=3.0), DeadlineUnmeetableError)
        with two.admit() as ticket:
            reserve(ticket, 100, 4.5)


def test_a_request_never_waits_for_itself() -> None:
    door = admission(devices=2)
    with door.admit() as ticket:
        reserve(ticket, 300, 10.0)
        ticket.reserve(6.5, Deadline(10.0))  # 9.5 s in all
        assert door.expected_seconds == pytest.approx(4.75)  # of two devices, side by side
        with pytest.raises(DeadlineExceededError, match=r"takes about 11.0 s, and"):
            ticket.reserve(1.5, Deadline(10.0))


def test_deadlines_that_are_impossible_alone_are_no_reason_to_come_back() -> None:
    door = admission()
    with door.admit() as ticket:
        with pytest.raises(DeadlineExceededError, match=r"takes about 2.0 s, and 1.\d s are left"):
            reserve(ticket, 200, 1.5)
        assert door.pending_pixels == 0
        reserve(ticket, 100, 1.5)
        with pytest.raises(DeadlineExceededError, match="is over"):
            reserve(ticket, 1, 0)


def test_retry_after_is_the_time_until_there_is_room() -> None:
    door = admission(max_requests=4, max_pixels=1000)
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
    with ExitStack() as stack:
        for _ in range(4):
            reserve(stack.enter_context(door.admit()), 250, 1e12, rate=1e7)
        assert door.retry_after() == 120


def test_retry_after_knows_what_pictures_wait_for() -> None:
    door = admission(max_requests=1, ahead=12.5)
    with door.admit() as ticket:
        reserve(ticket, 300)
        assert door.retry_after() == 13


@pytest.mark.parametrize(("ahead", "waits"), [(0.0, (1, 3)), (12.5, (13, 13)), (2.5, (3, 3))])
def test_every_refusal_knows_what_pictures_wait_for(ahead: float, waits: tuple[int, int]) -> None:
    door = admission(max_pixels=1000, ahead=ahead)
    with ExitStack() as stack:
        fill(door, stack, 300, 300, 300)
        assert refusal(door, 150).retry_after == waits[0]  # too many pixels: those above take 0.5 s
        assert refusal(door, 100, seconds=7.5).retry_after == waits[1]  # 9 s in front, 1 s, and 7.5 are left


def test_retry_after_is_about_right_for_a_device_that_works() -> None:
    """A device of 0.01 s a pixel, in seconds that the test counts."""
    door = admission(max_requests=100, max_pixels=1000)
    stacks = [ExitStack() for _ in range(10)]
    for stack in stacks:
        fill(door, stack, 100)
    waits = {pixels: refusal(door, pixels).retry_after for pixels in (50, 150, 250, 650)}
    assert list(waits.values()) == [1, 2, 3, 7]
    for second, stack in enumerate(stacks, start=1):
        stack.close()  # 100 pixels are done
        for pixels in [pixels for pixels, wait in waits.items() if wait == second]:
            with door.admit() as ticket:
                reserve(ticket, pixels)  # let in when it was asked to come back
            waits.pop(pixels)
        for pixels, wait in waits.items():
            assert wait > second
            refusal(door, pixels)  # and not before
    assert waits == {}


def test_many_threads_leave_nothing_behind() -> None:
    door = admission(max_requests=6, max_pixels=50)
    most = threading.Lock()
    seen: list[tuple[int, int]] = []

    def work(index: int) -> bool:
        try:
            with door.admit() as ticket:
                reserve(ticket, index % 20 + 1)
                with most:
                    seen.append((door.pending, door.pending_pixels))
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
    assert (door.pending, door.pending_pixels) == (0, 0)
