"""Whose turn it is, at times that the test chooses."""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from service.scheduling.batch_limits import BatchLimits
from service.scheduling.delivery import CompletionQueue
from service.scheduling.work import Request
from tests.service.scheduling.queue_fakes import classified, line
from tests.service.scheduling.scheduler_fakes import NumberEngine, job


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_load_ends_while_requests_never_do(loop: asyncio.AbstractEventLoop, one_by_one: bool) -> None:
    """A step takes a second, a request comes in each, thirty wait already. The first of a load's calls waits
    for these, then one step goes in between two; each call would wait as long if it counted anew."""
    calls, before = 21, 30
    queue = line(loop, ageing=10.0)
    for _ in range(before):
        queue.add(0.0, 1, cached=True)
    steps, done, waiting, last = 0, 0, None, -1
    between: list[int] = []
    while done < calls:
        queue.add(steps, 1, cached=True)
        if waiting is None and steps > last + 1:  # the loader comes back a moment later
            waiting = queue.call("warm", steps if one_by_one else 0.0)
        if queue.next(steps) == "warm":
            between.append(steps - last - 1)
            done, waiting, last = done + 1, None, steps
        steps += 1
    if one_by_one:
        assert min(between) >= before
    else:
        assert between == [before + 1] + [1] * (calls - 1)
        assert steps == before + 2 * calls


def test_earliest_deadline_goes_first_and_arrival_breaks_ties(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    for numbered, seconds in enumerate([50.0, 20.0, 40.0, 20.0, 30.0]):
        queue.add(0, numbered, seconds=seconds)
    assert len(queue.queue.waiting) == 5
    assert queue.turns(8) == [
        ("full", [1, 3, 4]),
        *classified(1, 3, 4),
        ("idle", [2, 0]),
        *classified(2, 0),
        None,
    ]
    assert (queue.queue.waiting, queue.queue.oldest()) == (set(), None)


def test_only_one_engine_and_shape_share_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    other = NumberEngine()
    queue.add(0, 1, seconds=50)
    queue.add(0, 2, seconds=40, shape=(6, 4))
    queue.add(0, 3, seconds=60)
    queue.add(0, 4, seconds=45, engine=other)
    turns = [turn for turn in queue.turns(8) if turn and turn[0] != "classify"]
    assert turns == [("idle", [2]), ("idle", [4]), ("idle", [1, 3])]


def test_the_engine_says_what_a_batch_is_worth(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=8)
    queue.engine.batch = 1
    for numbered in range(3):
        queue.add(0, numbered)
    # each is answered before the next one begins
    assert queue.turns(6) == [
        turn for number in range(3) for turn in (("full", [number]), ("classify", [number]))
    ]
    queue.engine.batch = 2
    for numbered in range(3):
        queue.add(0, numbered)
    assert queue.next() == ("full", [0, 1])


def test_devices_that_are_free_share_what_waits(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=8, devices=4)
    for numbered in range(4):
        queue.add(0, numbered)
    taken = []
    for device in range(4):
        queue.queue.idle = 3 - device  # the others
        taken.append(queue.next(device=device))
    assert taken == [("idle", [number]) for number in range(4)]
    # each goes on where its prediction lies
    assert [queue.next(device=device) for device in range(4)] == classified(0, 1, 2, 3)
    for numbered in range(9):
        queue.add(0, numbered)
    queue.queue.idle = 1
    assert queue.next() == ("idle", [0, 1, 2, 3, 4])
    queue.queue.idle = 0
    assert queue.next(device=1) == ("idle", [5, 6, 7, 8])


def test_ageing_keeps_far_deadlines_from_starving(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1, ageing=9.9)
    queue.add(0, 999, seconds=300)
    served = []
    for second in range(20):  # two urgent ones a second, and room for one
        queue.add(second, 2 * second, seconds=5)
        queue.add(second + 0.5, 2 * second + 1, seconds=5)
        served.append(queue.next(second + 0.5))
        queue.next(second + 0.5)  # its classify
    # those that came in the first 4.9 s have their deadline before the old one's 9.9 s: ten requests
    assert served.index(("full", [999])) == 10


def test_ageing_keeps_far_classify_steps_from_starving(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, ageing=9.9)
    queue.add(0, 999, seconds=300, cached=True)
    served = []
    for second in range(20):  # two urgent ones a second, and room for one
        queue.add(second, 2 * second, seconds=5, cached=True)
        queue.add(second + 0.5, 2 * second + 1, seconds=5, cached=True)
        served.append(queue.next(second + 0.5))
    assert served.index(("classify", [999])) == 10
    assert served[:10] == classified(*range(10))


@pytest.mark.parametrize("cached", [False, True])
def test_ageing_keeps_far_embed_steps_from_starving(loop: asyncio.AbstractEventLoop, cached: bool) -> None:
    """Whether it stands behind predict or behind classify steps."""
    queue = line(loop, size=1, ageing=9.9)
    queue.text(0, "far", seconds=300)
    served = []
    for second in range(20):
        queue.add(second, 2 * second, seconds=5, cached=cached)
        queue.add(second + 0.5, 2 * second + 1, seconds=5, cached=cached)
        served.append(queue.next(second + 0.5))
        if not cached:
            queue.next(second + 0.5)  # its classify
    assert served.index("far x1") == 10


def test_delay_counts_from_the_oldest_of_the_bucket(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, delay=1.0)
    queue.add(0.0, 1, seconds=100)
    queue.add(0.9, 2, seconds=50)  # more urgent, but not the oldest
    assert queue.next(0.95) is None
    assert queue.queue.patience(queue.start + 0.95) == pytest.approx(0.05)
    assert queue.next(0.99) is None
    assert queue.turns(3, 1.0) == [("delay", [2, 1]), *classified(2, 1)]
    queue.add(2.0, 3)
    queue.add(2.1, 4)
    assert queue.next(2.1) is None
    queue.add(2.2, 5)
    assert queue.next(2.2) == ("full", [3, 4, 5])
    assert queue.queue.patience(queue.start) is None


def test_a_ready_bucket_goes_before_a_more_urgent_one_that_still_waits(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = line(loop, size=2, delay=1.0)
    queue.add(0.0, 1, seconds=10)
    queue.add(0.1, 2, seconds=50, shape=(2, 2))
    queue.add(0.2, 3, seconds=50, shape=(2, 2))
    assert queue.turns(3, 0.2) == [("full", [2, 3]), *classified(2, 3)]
    assert queue.next(0.3) is None
    queue.queue.hurry = True
    assert queue.next(0.3) == ("idle", [1])


def test_expired_and_abandoned_make_no_batch_full(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=2, delay=1.0)
    late = queue.add(0.0, 1)
    gone = queue.add(0.0, 2)
    queue.add(0.5, 3)
    late.job.deadline.at = 0
    gone.job.deadline.abandoned = True
    assert queue.next(0.6) is None
    assert (late.settled, gone.settled, len(queue.queue.waiting)) == (True, True, 1)
    assert queue.turns(2, 1.5) == [("delay", [3]), *classified(3)]
    only = queue.add(2.0, 4)
    only.job.deadline.abandoned = True
    assert queue.next(3.0) is None
    assert (only.settled, len(queue.queue.waiting)) == (True, 0)


def test_calls_have_their_turn_among_requests(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1, ageing=10)
    queue.add(0.0, 0)
    queue.call("a", 1.0)
    queue.add(2.0, 1)
    queue.add(2.0, 2, seconds=3)
    queue.call("b", 3.0)
    assert queue.turns(9) == [
        *(("full", [2]), ("classify", [2])),
        *(("full", [0]), ("classify", [0]), "a"),
        *(("full", [1]), ("classify", [1]), "b", None),
    ]
    call = queue.call("other device's", device=0)
    queue.queue.discard(call)
    assert queue.next() is None


def test_one_flight_for_one_picture(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1)
    first = queue.add(0, 1, seconds=50, key=b"one")
    queue.add(0, 2, seconds=40)
    second = queue.add(0, 3, seconds=30, key=b"one")  # makes the flight the most urgent
    assert (first.shared, second.shared) == (False, True)
    assert queue.turns(5) == [("full", [1]), *classified(3), ("full", [2]), *classified(2, 1)]
    # one that leaves takes nothing with it, the last one takes the flight
    first, second = queue.add(0, 1, key=b"one"), queue.add(0, 2, key=b"one")
    queue.queue.discard(first)
    assert len(queue.queue.waiting) == 1
    queue.queue.discard(second)
    assert (queue.next(), queue.queue.waiting) == (None, set())
    queue.add(0, 5, key=b"one")
    assert queue.turns(2) == [("full", [5]), *classified(5)]


def test_classify_waits_for_text_and_predict_does_not(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1)
    early, late = queue.add(0, 1, text=None), queue.add(0, 2, text=None)
    queue.queue.take_text(early, torch.zeros(1, 4))
    assert queue.turns(4) == [("full", [1]), *classified(1), ("full", [2]), None]
    assert queue.queue.waiting == {late}
    queue.queue.take_text(late, torch.zeros(1, 4))
    assert queue.turns(2) == [*classified(2), None]


def test_names_go_once_and_together(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    one, two = queue.text(0, "sky", "tree"), queue.text(1, "tree", "road")
    three = queue.text(2, "sky", templates=2)
    assert queue.turns(3) == ["sky tree road x1", "sky x2", None]
    assert all(request.settled for request in (one, two, three))


def test_a_long_list_goes_on_in_steps_after_short_ones_and_other_work(
    loop: asyncio.AbstractEventLoop,
) -> None:
    queue = line(loop, size=1, chunk=20, ageing=10)
    long = queue.text(0, *(f"name {n}" for n in range(40)), templates=4)
    assert str(queue.next()).startswith("name 0 name 1")
    queue.queue.ended(0, True, 0.05)
    short = queue.text(5, "sky")
    for numbered in range(3):
        queue.add(6 + numbered, numbered)
    assert queue.next() == "sky x1"  # its first step
    assert short.settled
    queue.queue.ended(0, True, 0.05)
    turns = []
    for _ in range(4):  # of 0.05 s; the long list is due after three times its step
        turns.append(queue.next())
        queue.queue.ended(0, isinstance(turns[-1], str), 0.05)
    assert turns[:3] == [("full", [0]), ("classify", [0]), ("full", [1])]
    assert str(turns[3]).startswith("name 0 ")
    rest = [queue.next() for _ in range(100)]
    assert rest[:3] == [*classified(1), ("full", [2]), *classified(2)]
    assert long.settled
    assert len(long.rows) == 40
    assert rest[-1] is None


def test_names_that_nobody_wants_any_more_are_left_out(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, chunk=8)
    gone, stays = queue.text(0, "sky", "tree", templates=16), queue.text(1, "tree", "road", templates=16)
    assert queue.next() == "sky tree road x2"
    queue.queue.discard(gone)
    assert queue.turns(4) == ["tree road x4"] * 3 + ["tree road x2"]
    assert stays.settled
    assert queue.next() is None
    queue.queue.discard(queue.text(0, "house"))
    assert queue.next() is None


def test_discard_takes_out_exactly_one(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    requests = [queue.add(0, numbered) for numbered in range(3)]
    cached = queue.add(0, 9, cached=True)
    call = queue.call("never")
    for waiting in (requests[1], cached, call, call, cached, requests[1]):
        queue.queue.discard(waiting)
    assert queue.queue.waiting == {requests[0], requests[2]}
    assert queue.turns(4) == [("idle", [0, 2]), *classified(0, 2), None]
    queue.queue.discard(requests[0])
    assert queue.queue.is_empty_for(0)


def test_a_job_needs_a_picture_or_a_prediction(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    empty = job(queue.engine, 1, cached=True, prediction=None)
    with pytest.raises(ValueError, match="prepared image or a prediction"):
        Request(CompletionQueue(loop), empty, 10)


def test_smaller_batches_are_remembered_for_a_while() -> None:
    limits, bucket, other = BatchLimits(8), (1, (4, 6)), (1, (8, 8))
    limits.shrink(bucket, 2)
    assert (limits.size(bucket), limits.size(other)) == (2, 8)
    for _ in range(100):
        limits.good(bucket, 1)  # smaller ones prove nothing
        limits.good(other, 8)
    assert limits.size(bucket) == 2
    for _ in range(31):
        limits.good(bucket, 2)
    assert limits.size(bucket) == 2
    limits.good(bucket, 2)
    assert limits.size(bucket) == 4
    for _ in range(32):
        limits.good(bucket, 4)
    assert limits.size(bucket) == 8
    for index in range(65):
        limits.shrink((index, (4, 6)), 1)
    assert limits.size((0, (4, 6))) == 8  # 64 are remembered, this one was the oldest
    assert limits.size((1, (4, 6))) == 1
