"""Whose turn it is, at times that the test chooses."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from service.errors import DeadlineExceededError
from service.scheduling.delivery import CompletionQueue
from service.scheduling.queue import Batch, BatchLimits, DeviceCall, Queue, Request
from tests.service.scheduling.batcher_fakes import NumberEngine, job


class Line:
    """A queue, and requests by number that came at given seconds after the start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, delay: float, ageing: float):
        self.limits = BatchLimits(size)
        self.expired: list[int] = []
        self.queue = Queue(
            limits=self.limits,
            max_batch_size=size,
            max_batch_delay_s=delay,
            expired=lambda request, error: self.expired.append(number(request)),
        )
        self.engine = NumberEngine()
        self.ageing = ageing
        self.start = time.monotonic()
        self._completions = CompletionQueue(loop)

    def add(
        self,
        at: float,
        numbered: int,
        *,
        seconds: float = 100.0,
        shape: tuple[int, int] = (4, 6),
        engine: NumberEngine | None = None,
        cached: bool = False,
    ) -> Request:
        wanted = job(engine or self.engine, numbered, shape=shape, cached=cached)
        wanted.deadline.at = self.start + at + seconds
        request = Request(self._completions, wanted, self.ageing)
        request.submitted = self.start + at
        request.urgency = min(wanted.deadline.at, request.submitted + self.ageing)
        self.queue.add(request)
        return request

    def call(self, name: str) -> DeviceCall[str]:
        call = DeviceCall(self._completions, lambda: name)
        self.queue.add(call)
        return call

    def next(self, at: float = 0.0) -> tuple[str, list[int]] | str | None:
        step = self.queue.next(self.start + at)
        if isinstance(step, Batch):
            return step.trigger, [number(request) for request in step.requests]
        return None if step is None else str(step.work())


def number(request: Request) -> int:
    prediction = request.job.prediction
    return int(request.prepared.pixels if prediction is None else prediction.number)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def line(
    loop: asyncio.AbstractEventLoop, *, size: int = 3, delay: float = 0.0, ageing: float = 1000.0
) -> Line:
    return Line(loop, size, delay, ageing)


def test_earliest_deadline_goes_first_and_arrival_breaks_ties(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    for numbered, seconds in enumerate([50.0, 20.0, 40.0, 20.0, 30.0]):
        queue.add(0, numbered, seconds=seconds)
    assert queue.queue.depth == 5
    assert queue.queue.cost == 5 * 24
    assert queue.next() == ("full", [1, 3, 4])
    assert queue.next() == ("idle", [2, 0])
    assert queue.next() is None
    assert (queue.queue.depth, queue.queue.cost, queue.queue.oldest()) == (0, 0, None)


def test_only_one_engine_and_shape_share_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    other = NumberEngine()
    queue.add(0, 1, seconds=50)
    queue.add(0, 2, seconds=40, shape=(6, 4))
    queue.add(0, 3, seconds=60)
    queue.add(0, 4, seconds=45, engine=other)
    assert [queue.next() for _ in range(4)] == [("idle", [2]), ("idle", [4]), ("idle", [1, 3]), None]


def test_ageing_keeps_far_deadlines_from_starving(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1, ageing=9.9)
    queue.add(0, 999, seconds=300)
    served = []
    for second in range(20):  # two urgent ones a second, and room for one
        queue.add(second, 2 * second, seconds=5)
        queue.add(second + 0.5, 2 * second + 1, seconds=5)
        served.append(queue.next(second + 0.5))
    # those that came in the first 4.9 s have their deadline before the old one's 9.9 s: ten requests
    assert served.index(("full", [999])) == 10
    in_shape = line(loop, size=1, ageing=9.9)
    in_shape.add(0, 999, seconds=300, shape=(8, 8))
    for second in range(20):
        in_shape.add(second, second, seconds=5)
        in_shape.add(second, 100 + second, seconds=5)
    taken = [in_shape.next(20) for _ in range(41)]
    assert taken.index(("full", [999])) == 10


def test_delay_counts_from_the_oldest_of_the_bucket(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, delay=1.0)
    queue.add(0.0, 1, seconds=100)
    queue.add(0.9, 2, seconds=50)  # more urgent, but not the oldest
    assert queue.next(0.95) is None
    patience = queue.queue.patience(queue.start + 0.95)
    assert patience == pytest.approx(0.05)
    assert queue.next(0.99) is None
    assert queue.next(1.0) == ("delay", [2, 1])
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
    assert queue.next(0.2) == ("full", [2, 3])
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
    assert queue.expired == [1, 2]
    assert queue.queue.depth == 1
    assert queue.next(1.5) == ("delay", [3])
    only = queue.add(2.0, 4)
    only.job.deadline.abandoned = True
    assert queue.next(3.0) is None
    assert (queue.expired, queue.queue.depth) == ([1, 2, 4], 0)


def test_a_round_is_a_call_then_cached_ones_then_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=2)
    for numbered in range(6):
        queue.add(0, numbered, seconds=10 + numbered)
    for numbered in range(10, 16):
        queue.add(0, numbered, cached=True, seconds=30 - numbered)
    for name in "abc":
        queue.call(name)
    turns = [queue.next() for _ in range(13)]
    assert turns == [
        *("a", ("cached", [15]), ("cached", [14]), ("full", [0, 1])),
        *("b", ("cached", [13]), ("cached", [12]), ("full", [2, 3])),
        *("c", ("cached", [11]), ("cached", [10]), ("full", [4, 5])),
        None,
    ]


def test_calls_get_as_much_time_as_the_batch_before_took(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1)
    for numbered in range(3):
        queue.add(0, numbered)
    assert queue.next(0) == ("full", [0])
    for name in "abcd":
        queue.call(name)
    assert [queue.next(at) for at in (1.0, 1.4, 1.9)] == ["a", "b", "c"]  # the batch took a second
    assert queue.next(2.1) == ("full", [1])
    assert queue.next(2.2) == "d"
    assert queue.next(2.21) == ("full", [2])
    for name in "ef":
        queue.call(name)
    assert [queue.next(3.0), queue.next(3.1), queue.next(9.0)] == ["e", "f", None]


def test_calls_and_cached_ones_alternate_without_batches(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop, size=1)
    for numbered in range(3):
        queue.add(0, numbered, cached=True)
        queue.call(f"call {numbered}")
    expected = [turn for i in range(3) for turn in (f"call {i}", ("cached", [i]))]
    assert [queue.next() for _ in range(7)] == [*expected, None]


def test_discard_takes_out_exactly_one(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    requests = [queue.add(0, numbered) for numbered in range(3)]
    cached = queue.add(0, 9, cached=True)
    call = queue.call("never")
    for waiting in (requests[1], cached, call, call, cached, requests[1]):
        queue.queue.discard(waiting)
    assert queue.queue.depth == 2
    assert [queue.next(), queue.next()] == [("idle", [0, 2]), None]
    queue.queue.discard(requests[0])
    assert (queue.queue.depth, queue.queue.cost) == (0, 0)


def test_cached_requests_whose_time_is_over_are_passed_over(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    queue.add(0, 1, cached=True, seconds=5).job.deadline.abandoned = True
    queue.add(0, 2, cached=True, seconds=9)
    assert queue.next() == ("cached", [2])
    assert queue.expired == [1]


def test_a_job_needs_a_picture_or_a_prediction(loop: asyncio.AbstractEventLoop) -> None:
    queue = line(loop)
    empty = job(queue.engine, 1, cached=True)
    object.__setattr__(empty, "prediction", None)
    with pytest.raises(ValueError, match="prepared picture or a prediction"):
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


def test_expired_requests_are_told_why(loop: asyncio.AbstractEventLoop) -> None:
    told: list[DeadlineExceededError] = []
    queue = Queue(
        limits=BatchLimits(2),
        max_batch_size=2,
        max_batch_delay_s=0.0,
        expired=lambda request, error: told.append(error),
    )
    queue.add(Request(CompletionQueue(loop), job(NumberEngine(), 1, seconds=-1.0), 10))
    assert queue.next(time.monotonic()) is None
    assert [error.detail for error in told] == ["the request's time of -1 s is over; see timeout_ms"]
