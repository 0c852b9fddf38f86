"""Requests that are classified together: who, how many, and that each stays the queue's own."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.service.scheduling.queue_fakes import Line
from tests.service.scheduling.scheduler_fakes import NumberEngine


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_what_is_ready_is_classified_together_where_an_engine_finds_it_worth(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The most urgent first, of one version, so many as are worth it; what others may do is theirs."""
    line = Line(loop, 8, 0.0, 10.0, 2, 8)
    line.engine.classified_at_once = 3
    other = NumberEngine()
    for number in range(5):
        line.add(0.001 * number, number, cached=True)
    line.add(0.0015, 7, cached=True, engine=other)
    assert line.turns(4, at=1.0) == [
        ("classify", [0, 1, 2]),
        ("classify", [7]),
        ("classify", [3, 4]),
        None,
    ]
    assert not line.queue.waiting
    line.queue.idle = 1
    for number in range(2):
        line.add(1.0, number, cached=True)
    assert line.turns(2, at=1.0) == [("classify", [0]), ("classify", [1])]


def test_outputs_that_are_classified_together_are_bounded(loop: asyncio.AbstractEventLoop) -> None:
    line = Line(loop, 8, 0.0, 10.0, 1, 8)
    line.engine.classified_at_once = 10
    for number in range(3):
        line.add(0.0, number, cached=True, output_size=(3000, 2500))
    assert line.turns(3, at=1.0) == [("classify", [0, 1]), ("classify", [2]), None]


def test_who_has_gone_is_not_classified_with_others(loop: asyncio.AbstractEventLoop) -> None:
    line = Line(loop, 8, 0.0, 10.0, 1, 8)
    line.engine.classified_at_once = 10
    requests = [line.add(0.0, number, cached=True) for number in range(3)]
    assert requests[1]._future is not None
    requests[1]._future.cancel()
    assert line.turns(2, at=1.0) == [("classify", [0, 2]), None]
    assert not line.queue.waiting
