"""Those who are sent away come back one after the other."""

import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.errors import QueueFullError
from service.scheduling.admission import Admission
from service.scheduling.deadline import Deadline
from service.scheduling.returns import Returns, whole
from tests.service.fakes import PNG, FakeEngine, live
from tests.service.inference_protocol.wire import segment
from tests.waiting import WAIT


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


def test_one_that_asks_again_at_once_delays_itself() -> None:
    """It takes a second of everybody's time at most, however often it asks, and all else of its own."""
    clock = Clock()
    returns = Returns(clock)
    for turn in range(20):
        told = [returns.after(0.5, client="hasty") for _ in range(1100)]
        assert told == sorted(told)
        assert told[-1] == 1 + 10
        assert returns.after(0.5, client="another one") <= 1 + 1, turn
        clock.now += 0.5
    assert returns.after(0.5, client="a third one") == 1


def test_many_clients_are_spread_whoever_is_among_them() -> None:
    returns = Returns(Clock())
    told = [returns.after(0.5, client=str(number)) for number in range(400) for _ in range(2)]
    assert told == sorted(told)
    assert max(Counter(told).values()) <= 102
    hasty = Counter(returns.after(0.5, client="hasty") for _ in range(200))
    assert set(hasty) <= {8, 9, 10}  # behind them all, but for rounding
    assert returns.after(0.5, client="the last one") == 10  # 8 s of the others and 1 s of the hasty one


def test_so_many_clients_are_remembered() -> None:
    returns = Returns(Clock())
    for number in range(5000):
        returns.after(0.5, client=f"client {number}")
    assert len(returns._own) == 1024


def test_requests_that_are_done_sooner_are_asked_for_sooner() -> None:
    returns = Returns(Clock())
    told = Counter(returns.after(0.5, request_s=0.002) for _ in range(1500))  # moments of 1 ms
    assert set(told) == {1, 2}
    assert 998 <= told[1] <= 1002


def test_a_hasty_client_is_told_from_others_by_its_address_or_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.scheduling.returns.MOMENT_S", 0.1)
    key = "a key"
    digest = hashlib.sha256(key.encode()).hexdigest()
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with (
        live(engine, max_pending=1, admin_keys=[f"name:sha256:{digest}"]) as (url, service),
        ThreadPoolExecutor(1) as clients,
    ):

        def told(address: str, headers: dict[str, str], times: int = 1) -> int:
            transport = httpx.HTTPTransport(local_address=address)
            with httpx.Client(transport=transport, headers=headers, timeout=WAIT) as client:
                for _ in range(times):
                    answer = client.post(f"{url}/v1/segment", content=PNG)
            assert answer.status_code == 429
            return int(answer.headers["retry-after"])

        service.admission._returns = Returns(Clock())  # so that no time goes by meanwhile
        waiting = clients.submit(segment, url)
        assert engine.running.wait(WAIT)
        shown = {"X-API-Key": key}
        assert told("127.0.0.1", {}, 25) == 3
        assert told("127.0.0.2", {}) == 2
        assert told("127.0.0.3", shown, 25) == 4  # of which one second is the first one's
        assert told("127.0.0.4", shown) == 4  # the same client, wherever it asks from
        assert told("127.0.0.4", {}) == 3
        gate.set()
        assert waiting.result().status_code == 200


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
