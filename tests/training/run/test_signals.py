"""A run's signals: noted once, and left alone where whoever started the process has it ignore them."""

import os
import signal
from collections.abc import Iterator

import pytest

from training.run.signals import stop_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_is_a_wish_and_the_second_is_as_before(number: signal.Signals) -> None:
    came = []
    signal.signal(number, lambda number, frame: came.append(number))
    with stop_signals() as stop_request:
        os.kill(os.getpid(), number)
        assert (stop_request.signal, came) == (number, [])
        os.kill(os.getpid(), number)
        assert came == [number]
    os.kill(os.getpid(), number)
    assert came == [number] * 2


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stop_request:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_request.signal == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_request.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
