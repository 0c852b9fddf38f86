"""What steps are expected to take, for devices whose cost is known."""

import math
import random
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest

from service.scheduling.engine import Measurement
from service.scheduling.price import CHUNK_SECONDS, Prices, StepPrice, Work
from tests.service.fakes import INFO

WARM = (480 * 640, 640 * 480, 512 * 512, 736 * 1280)


def padded(rows: int, columns: int) -> int:
    return math.ceil(rows / 32) * 32 * math.ceil(columns / 32) * 32


@pytest.mark.parametrize("constant", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("rate", [1e-8, 3e-7, 1e-5])
def test_two_hundred_random_shapes_after_a_warm_up(constant: float, rate: float) -> None:
    own, price = random.Random(0), StepPrice()

    def took(units: int) -> float:
        return (constant + rate * units) * own.lognormvariate(0, 0.1)

    for units in WARM:
        price.observe(units, took(units))
    good = 0
    for _ in range(200):
        units = padded(own.randint(1, 1280), own.randint(1, 1280))
        seconds = took(units)
        good += 1 / 1.5 <= price.seconds(units) / seconds <= 1.5
        price.observe(units, seconds)
    assert good >= 190


def test_steps_that_grow_faster_than_their_pictures() -> None:
    """As EBSeg-tiny's on a CPU: 1.2 us a pixel of its smallest pictures, 1.7 us a pixel of its largest."""
    own, price = random.Random(0), StepPrice()
    shapes = (24576, 43008, 55296, 86016, 98304, 122880, 147456)

    def took(units: int) -> float:
        return 1.1e-6 * (1 + 4e-6 * units) * units * own.lognormvariate(0, 0.1)

    for units in (98304, 98304, 98304, 147456):
        price.observe(units, took(units))
    good = 0
    for _ in range(200):
        units = own.choice(shapes)
        seconds = took(units)
        good += 1 / 1.5 <= price.seconds(units) / seconds <= 1.5
        price.observe(units, seconds)
    assert good >= 190


def test_one_odd_step_moves_nothing() -> None:
    price = StepPrice()
    for units in WARM * 4:
        price.observe(units, 3e-7 * units)
    before = [price.seconds(units) for units in WARM]
    price.observe(32 * 2560, 1000.0)  # a picture of 1000 x 1, and a device that stumbled over it
    price.observe(32 * 2560, 1e-9)
    for units, expected in zip(WARM, before, strict=True):
        price.observe(units, 3e-7 * units)
        assert price.seconds(units) == pytest.approx(expected, rel=0.02)


def test_a_device_that_changes_is_followed() -> None:
    price = StepPrice()
    for factor in (1.0, 20.0, 0.5):
        for units in WARM * 20:
            price.observe(units, factor * 3e-7 * units)
        for units in WARM:
            assert price.seconds(units) == pytest.approx(factor * 3e-7 * units, rel=0.05)


@pytest.mark.parametrize(("seconds", "most"), [(0.01, 8 + 640 // 8), (1e-5, 8 + 640 // 64)])
def test_a_line_is_drawn_as_often_as_steps_are_long(
    seconds: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Mock(wraps=StepPrice._draw)
    monkeypatch.setattr(StepPrice, "_draw", lambda price: drawn(price))
    price = StepPrice()
    for number in range(8 + 640):
        price.observe(1000 + number % 7, seconds)
    assert drawn.call_count == most
    assert price.seconds(1000) == pytest.approx(seconds, rel=0.01)


def test_a_requests_price_is_the_sum_of_its_steps_and_the_median_of_its_devices() -> None:
    prices = Prices()
    devices = [replace(INFO, device=f"cuda:{index}") for index in range(3)]
    assert prices.seconds(devices, Work(pixels=100, tokens=100, classified=100)) == 0
    for factor, info in zip((1, 2, 50), devices, strict=True):
        prices.warmed(
            info, [Measurement("predict", 1000, factor * 1.0), Measurement("embed", 10, factor * 0.1)]
        )
        prices.warmed(info, [Measurement("classify", 100, factor * 0.01)])
    work = Work(pixels=2000, tokens=30, classified=500)
    assert prices.seconds(devices, work) == pytest.approx(2 * (2.0 + 0.3 + 0.05))
    assert prices.seconds(devices[:1], Work(tokens=30)) == pytest.approx(0.3)
    prices.forget(INFO.digest)
    assert prices.seconds(devices, work) == 0


@pytest.mark.parametrize(("constant", "rate"), [(0.0, 4e-5), (0.01, 4e-5), (0.002, 1e-6), (0.024, 0.0)])
def test_a_long_list_costs_what_its_chunks_cost(constant: float, rate: float) -> None:
    """Also where short lists alone were seen, whose times say nothing of a token's."""
    prices = Prices()
    for units in (56, 112, 56, 112):
        prices.observe(INFO, "embed", units, constant + rate * units)
    for names in (1, 64, 1024):
        tokens, took, largest, left = 400 * names, 0.0, 112, 400 * names
        while left > 0:  # as they would run
            step = min(left, prices.chunk(INFO, 256), 4 * largest)
            took, left = took + constant + rate * step, left - step
        seconds = prices.seconds([INFO], Work(tokens=tokens))
        assert 1 / 1.5 <= seconds / took <= 1.5
    assert seconds > 0.4


def test_a_late_step_of_freed_weights_leaves_nothing() -> None:
    """Neither it nor a question for its price does; a warm-up of the same weights begins anew."""
    prices = Prices()
    prices.observe(INFO, "predict", 1000, 1.0)
    prices.forget(INFO.digest)
    prices.observe(INFO, "predict", 1000, 1.0)
    assert (prices.seconds([INFO], Work(pixels=1000)), prices.chunk(INFO, 77)) == (0.0, 77)
    assert prices._prices == {}
    prices.warmed(INFO, [Measurement("predict", 1000, 2.0)])
    prices.observe(INFO, "predict", 1000, 2.0)
    assert prices.seconds([INFO], Work(pixels=1000)) == pytest.approx(2.0)
    for number in range(1000):
        prices.forget(f"{number:064}")
    assert len(prices._freed) == 64


def test_an_old_price_refuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    prices = Prices()
    assert not prices.trusted
    prices.observe(INFO, "predict", 100, 1000.0)
    assert prices.trusted
    later = time.monotonic() + 31
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not prices.trusted


@pytest.mark.parametrize(("constant", "rate"), [(0.0, 1e-4), (0.01, 1e-3), (0.2, 1e-5), (0.0, 0.0)])
def test_a_chunk_takes_about_fifty_milliseconds(constant: float, rate: float) -> None:
    prices = Prices()
    assert prices.chunk(INFO, 77) == 77
    for _ in range(4):
        for units in (16, 64, 256):
            prices.observe(INFO, "embed", units, constant + rate * units)
    chunk = prices.chunk(INFO, 77)
    if rate == 0 or rate * 4 * 256 < CHUNK_SECONDS / 2:
        assert chunk == 4 * 256  # no leap from small steps to large ones
    elif constant < CHUNK_SECONDS / 2:
        assert constant + rate * chunk == pytest.approx(CHUNK_SECONDS, rel=0.2)
    else:  # less than nothing cannot be asked for
        assert rate * chunk == pytest.approx(CHUNK_SECONDS / 2, rel=0.2)
