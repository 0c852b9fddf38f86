"""Redis stores for tests: started, counted, tripped, and nothing left of them at the end."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from service.caches.breaker import Breaker
from service.caches.redis_link import RedisLink
from service.caches.redis_store import RedisStore
from service.observability.metrics import Metrics
from tests.waiting import until

TIMEOUT_S = 0.25  # more than a busy machine needs for an answer of a Redis that does answer
PATIENT_S = 30.0  # where the time limit does not matter
CLOSED, OPEN = 0, 2


@dataclass(slots=True)
class Clock:
    """A clock that a test puts forward."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def count(metrics: Metrics, result: str, *, tier: str = "l2", cache: str = "text") -> float:
    labels = {"cache": cache, "tier": tier, "result": result}
    return metrics.registry.get_sample_value("ebseg_cache_ops_total", labels) or 0


def breaker_state(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("ebseg_redis_breaker_state")
    assert value is not None
    return value


def quick_breaker() -> Breaker:
    return Breaker(first_s=0.1, longest_s=0.1)


@contextlib.asynccontextmanager
async def started(
    url: str, *, timeout_s: float = TIMEOUT_S, breaker: Breaker | None = None
) -> AsyncIterator[tuple[RedisStore, Metrics]]:
    """A store after its first attempt to connect; at the end nothing of it is left."""
    metrics = Metrics()
    store = RedisStore(url, timeout_s=timeout_s, metrics=metrics, breaker=breaker)
    before = asyncio.all_tasks()
    await store.start()
    await until(lambda: len(store._link._tasks) == 1)  # the one that writes, and no longer the greeting
    try:
        yield store, metrics
    finally:
        await store.stop()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert [task for task in left if not task.get_name().startswith("liar")] == []


def limits_given(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time limits of all that is asked from now on, seconds; it grows."""
    given = []
    within = RedisLink.within

    async def noted(self: RedisLink, seconds: float, work: Coroutine[Any, Any, object]) -> object:
        given.append(seconds)
        return await within(self, seconds, work)

    monkeypatch.setattr(RedisLink, "within", noted)
    return given


async def timed(work: Awaitable[object]) -> tuple[object, float]:
    began = time.perf_counter()
    result = await work
    return result, time.perf_counter() - began


async def get(store: RedisStore, *keys: bytes) -> list[bytes | None] | None:
    return await store.get_many(keys, cache="text")


async def tripped(store: RedisStore) -> None:
    """Asks until the breaker opens."""
    for _ in range(3):
        assert await get(store, b"k") is None
