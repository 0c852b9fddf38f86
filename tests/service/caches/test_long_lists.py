"""Long lists of classes from a warm Redis: in small round trips, each with a time limit of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import redis

from model.vocabulary.classes import Vocabulary
from model.vocabulary.reading import as_read
from service.caches import redis_store, text_cache
from service.caches.breaker import Breaker
from service.caches.cache_values import EmbeddingKeys, Row, decode_many, encode, value_bytes
from service.caches.redis_link import READERS, RedisLink
from service.caches.text_cache import TextCache
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.hot_loading.stores import (
    CLOSED,
    OPEN,
    PATIENT_S,
    TIMEOUT_S,
    breaker_state,
    count,
    get,
    started,
)
from tests.service.towers import Device, Tower

pytestmark = pytest.mark.anyio
TEMPLATES = ("{}",)
WIDTH = 512
NAMES = 1024


def lists(number: int) -> list[list[str]]:
    return [[as_read(f"thing {part} {i}") for i in range(NAMES)] for part in range(number)]


def fill(client: redis.Redis, names: Sequence[str]) -> None:
    """What an earlier process would have left."""
    keys = EmbeddingKeys("t" * 64, TEMPLATES)
    rows = np.random.default_rng(0).standard_normal((len(names), WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    entries = {}
    for name, row in zip(names, rows, strict=True):
        key = keys.of([name])
        entries[b"ebseg:text:v1:" + key.hex().encode()] = encode(key, row)
    client.mset(entries)


@pytest.fixture
async def warm() -> AsyncIterator[RedisServer]:
    with redis_server() as server:
        fill(server.client(), [name for names in lists(4) for name in names])
        yield server


def mgets(client: redis.Redis) -> int:
    called: int = client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    return called


async def test_four_long_lists_at_once_embed_nothing(
    warm: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()

    def noted(
        keys: Sequence[bytes], values: Sequence[bytes | None], width: int | None
    ) -> tuple[dict[bytes, Row], list[bytes]]:
        threads.add(threading.current_thread().name)
        return decode_many(keys, values, width)

    monkeypatch.setattr(text_cache, "decode_many", noted)
    async with started(warm.url, timeout_s=TIMEOUT_S) as (store, metrics):
        before = mgets(warm.client())
        cache = TextCache(max_bytes=64 << 20, ttl_s=1000, metrics=metrics, store=store)
        tower, device = Tower(), Device()
        texts = await asyncio.gather(
            *(
                cache.get(Vocabulary.of(names, templates=TEMPLATES), tower.text_digest, device.embed(tower))
                for names in lists(4)
            )
        )
        await cache.stop()
        assert tower.calls == []
        assert [text.source for text in texts] == ["l2"] * 4
        assert [list(text.tensor.shape) for text in texts] == [[NAMES, WIDTH]] * 4
        assert breaker_state(metrics) == CLOSED
        assert count(metrics, "hit") == 4 * NAMES
        assert [count(metrics, result) for result in ("timeout", "error", "skipped", "miss")] == [0] * 4
        trips = mgets(warm.client()) - before
        assert 4 * NAMES * value_bytes(WIDTH) / trips <= redis_store.BATCH_BYTES
        assert threading.main_thread().name not in threads


async def test_every_round_trip_has_the_time_limit(
    warm: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that is far away: the list takes several times what one round trip may."""
    values = RedisLink.values

    async def far(self: RedisLink, keys: Sequence[bytes]) -> object:
        await asyncio.sleep(0.4 * TIMEOUT_S)
        return await values(self, keys)

    keys = [b"k%d" % i for i in range(5 * redis_store.BATCH_KEYS)]
    warm.client().mset(dict.fromkeys(keys, b"v"))
    monkeypatch.setattr(RedisLink, "values", far)
    async with started(warm.url, timeout_s=TIMEOUT_S) as (store, metrics):
        found = await store.get_many(keys, cache="text", value_bytes=1)
        assert found == [b"v"] * len(keys)
        assert breaker_state(metrics) == CLOSED
        seconds = metrics.registry.get_sample_value(
            "ebseg_cache_duration_seconds_sum", {"cache": "text", "tier": "l2"}
        )
        assert seconds is not None
        assert seconds > 1.9 * TIMEOUT_S


async def test_what_was_answered_before_the_silence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server() as server:
        keys = [b"k%d" % i for i in range(4 * redis_store.BATCH_KEYS)]
        server.client().mset(dict.fromkeys(keys, b"v"))
        round_trip, trips = redis_store.RedisStore._round_trip, 0

        async def frozen_at_the_third(
            self: redis_store.RedisStore, keys: Sequence[bytes], cache: str
        ) -> list[bytes | None] | None:
            nonlocal trips
            trips += 1
            if trips == 3:
                server.freeze()
            return await round_trip(self, keys, cache)

        monkeypatch.setattr(redis_store.RedisStore, "_round_trip", frozen_at_the_third)
        async with started(server.url, timeout_s=TIMEOUT_S) as (store, metrics):
            found = await store.get_many(keys, cache="text", value_bytes=1)
            assert found == [b"v"] * (2 * redis_store.BATCH_KEYS)
            assert trips == 3
            assert count(metrics, "timeout") == redis_store.BATCH_KEYS
            assert count(metrics, "skipped") == redis_store.BATCH_KEYS
            server.thaw()


async def test_waiting_for_ones_turn_is_bounded_and_no_fault_of_redis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_store, "MOST_WAITS", 0)
    with redis_server() as server:
        async with started(server.url, timeout_s=PATIENT_S) as (store, metrics):
            assert await get(store, b"k") is None
            assert count(metrics, "timeout") == 1
            assert breaker_state(metrics) == CLOSED


async def test_lookups_behind_a_frozen_server_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the breaker has opened, those that wait for their turn no longer ask."""
    with redis_server() as server:
        breaker = Breaker(first_s=60.0, longest_s=60.0)
        async with started(server.url, timeout_s=TIMEOUT_S, breaker=breaker) as (store, metrics):
            server.freeze()
            found = await asyncio.gather(*(get(store, b"k%d" % i) for i in range(100)))
            assert found == [None] * 100
            assert breaker_state(metrics) == OPEN
            assert count(metrics, "timeout") <= 2 * READERS
            assert count(metrics, "skipped") >= 100 - 2 * READERS
            server.thaw()


async def test_time_in_which_the_loop_was_busy_is_not_held_against_redis(empty_redis: RedisServer) -> None:
    empty_redis.client().set("k", b"v")
    async with started(empty_redis.url, timeout_s=0.05) as (store, metrics):
        busy = threading.Event()
        for _ in range(3):
            asked = asyncio.create_task(get(store, b"k"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            busy.wait(0.2)  # holds up the event loop, on purpose
            assert await asked == [b"v"]
        assert breaker_state(metrics) == CLOSED
