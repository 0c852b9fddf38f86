"""The text cache over a real Redis: shared between processes, and never worse than none."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis
import torch

from model.vocabulary.classes import Vocabulary
from service.caches.cache_values import EmbeddingKeys, Row, decode, encode
from service.caches.redis_store import RedisStore
from service.caches.text_cache import Text, TextCache
from service.observability.metrics import Metrics
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.hot_loading.stores import (
    CLOSED,
    OPEN,
    PATIENT_S,
    TIMEOUT_S,
    breaker_state,
    count,
    limits_given,
    quick_breaker,
    started,
)
from tests.service.towers import WIDTH, Device, Tower, row_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
TEMPLATES = ("{}",)
TTL_S = 1000


class Process:
    """What one process of the service has: a cache on a store of its own, a tower, a device."""

    def __init__(self, store: RedisStore, metrics: Metrics) -> None:
        self.metrics = metrics
        self.cache = TextCache(max_bytes=1 << 20, ttl_s=TTL_S, metrics=metrics, store=store)
        self.tower = Tower()
        self.device = Device()

    async def get(self, *names: str, owner: str = "") -> Text:
        vocabulary = Vocabulary.of(names, templates=TEMPLATES)
        embed = self.device.embed(self.tower)
        return await self.cache.get(vocabulary, self.tower.text_digest, embed, owner)

    def l2(self, result: str) -> float:
        return count(self.metrics, result)


@contextlib.asynccontextmanager
async def process(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[Process]:
    async with started(url, timeout_s=timeout_s, breaker=quick_breaker()) as (store, metrics):
        made = Process(store, metrics)
        yield made
        await made.cache.stop()


def key_of(name: str, owner: str = "") -> bytes:
    return EmbeddingKeys("t" * 64, TEMPLATES, owner).of([name])


def redis_key(name: str, owner: str = "") -> bytes:
    return b"ebseg:text:v1:" + key_of(name, owner).hex().encode()


def stored(client: redis.Redis, name: str) -> Row:
    value = client.get(redis_key(name))
    assert isinstance(value, bytes)
    return decode(key_of(name), value, WIDTH)


async def test_the_second_process_never_pays_for_what_the_first_has_written(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    async with process(empty_redis.url) as first:
        before = await first.get("a", "b", "c")
        assert before.source == "embedded"
        assert (first.l2("miss"), first.l2("hit")) == (3, 0)
        await until(lambda: first.l2("stored") == 3)
    assert set(client.scan_iter()) == {redis_key(name) for name in "abc"}
    lives = [client.pttl(redis_key(name)) / 1000 for name in "abc"]
    assert all(0.89 * TTL_S < life <= 1.1 * TTL_S for life in lives)
    async with process(empty_redis.url) as second:
        after = await second.get("c", "a")
        assert after.source == "l2"
        assert after.tensor.tolist() == before.tensor[[2, 0]].tolist()
        assert (await second.get("c", "a")).source == "l1"
        assert second.tower.calls == []
        more = await second.get("a", "d", "b", "e")  # one lookup, one call for all that is new
        assert more.source == "embedded"
        assert second.tower.calls == [["d", "e"]]
        assert (second.l2("miss"), second.l2("hit")) == (2, 3)


async def test_requests_at_the_same_moment_ask_redis_once(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    async with process(empty_redis.url) as first:
        await first.get("a", "b")
        await until(lambda: first.l2("stored") == 2)
    async with process(empty_redis.url) as second:
        await second.get("warm up")
        client.config_resetstat()
        texts = await asyncio.gather(*(second.get("a", "b") for _ in range(20)))
        assert client.info("commandstats")["cmdstat_mget"]["calls"] == 1
        assert [text.source for text in texts] == ["l2"] + ["joined"] * 19
        assert second.tower.calls == [["warm up"]]


async def test_an_owners_embeddings_are_found_and_awaited_by_nobody_else(empty_redis: RedisServer) -> None:
    """Neither in Redis nor on their way: by the time an owner could learn what others ask for."""
    client = empty_redis.client()
    owners = ("one", "other", "one", "other", "")
    async with process(empty_redis.url) as first:
        texts = await asyncio.gather(*(first.get("a", "b", owner=owner) for owner in owners))
        sources = [text.source for text in texts]
        assert sources == ["embedded", "embedded", "joined", "joined", "embedded"]
        assert sorted(name for call in first.tower.calls for name in call) == ["a"] * 3 + ["b"] * 3
        await until(lambda: first.l2("stored") == 6)
        assert (first.l2("miss"), first.l2("hit")) == (6, 0)
    keys = {redis_key(name, owner) for name in "ab" for owner in ("one", "other", "")}
    assert len(keys) == 6
    assert set(client.scan_iter()) == keys
    async with process(empty_redis.url) as second:
        assert (await second.get("a", "b", owner="one")).source == "l2"
        assert (await second.get("a", "b", owner="third")).source == "embedded"
        assert (second.l2("hit"), second.l2("miss")) == (2, 2)


SOUND = encode(key_of("b"), row_of("b", "{}"))
NARROW = np.full(4, 0.5, np.float32)


CORRUPT = {
    "empty": b"",
    "short": b"garbage",
    "pickle": b"\x80\x04\x95" + bytes(200),
    "zeros": bytes(48 + 4 * WIDTH),
    "cut by a byte": SOUND[:-1],
    "a byte more": SOUND + b"\0",
    "cut in its header": SOUND[:20],
    "a flipped bit": SOUND[:60] + bytes([SOUND[60] ^ 1]) + SOUND[61:],
    "another magic": b"X" + SOUND[1:],
    "another schema": SOUND[:4] + b"\2" + SOUND[5:],
    "another dtype": SOUND[:6] + b"\2" + SOUND[7:],
    "another class": encode(key_of("a"), row_of("a", "{}")),
    "another width": encode(key_of("b"), NARROW),
    "a megabyte": bytes(1 << 20),
}


@pytest.mark.parametrize("value", CORRUPT.values(), ids=CORRUPT)
@pytest.mark.parametrize("known_width", [False, True])
async def test_a_corrupt_value_is_counted_and_made_good(
    empty_redis: RedisServer, value: bytes, known_width: bool
) -> None:
    client = empty_redis.client()
    client.set(redis_key("a"), encode(key_of("a"), row_of("a", "{}")))
    client.set(redis_key("b"), value)
    async with process(empty_redis.url) as one:
        if known_width:
            await one.get("other")
        text = await one.get("a", "b", "c")
        assert torch.equal(text.tensor, torch.from_numpy(np.stack([row_of(n, "{}") for n in "abc"])))
        assert one.l2("corrupt") == 1
        assert one.l2("hit") >= 1
        assert sum(call.count("b") for call in one.tower.calls) == 1
        assert not any("a" in call for call in one.tower.calls)
        await until(lambda: one.l2("stored") == 2 + known_width)
    assert np.array_equal(stored(client, "b"), row_of("b", "{}"))


async def test_a_corrupt_value_is_deleted_even_if_it_cannot_be_made_good(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    client.set(redis_key("a"), b"garbage")
    async with process(empty_redis.url) as one:
        one.tower.error = ValueError("broken")
        with pytest.raises(ValueError, match="broken"):
            await one.get("a")
        await until(lambda: not client.exists(redis_key("a")))
        assert (one.l2("corrupt"), one.l2("miss")) == (1, 0)


async def test_another_type_under_our_key_is_a_miss_and_is_replaced(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    client.rpush(redis_key("a"), "x")
    async with process(empty_redis.url) as one:
        assert (await one.get("a")).source == "embedded"
        assert (one.l2("corrupt"), one.l2("miss")) == (0, 1)
        await until(lambda: one.l2("stored") == 1)
    assert np.array_equal(stored(client, "a"), row_of("a", "{}"))


async def test_what_no_reader_would_take_is_not_written(empty_redis: RedisServer) -> None:
    async with process(empty_redis.url) as one:
        one.tower.embed = lambda names, templates: torch.ones(len(names), WIDTH)  # type: ignore[method-assign]
        assert (await one.get("a", "b")).tensor.sum() == 2 * WIDTH
        assert one.l2("dropped") == 2
    assert empty_redis.client().dbsize() == 0


async def test_a_frozen_redis_costs_little_and_then_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = limits_given(monkeypatch)
    with redis_server() as server:
        async with process(server.url, timeout_s=TIMEOUT_S) as one:
            await one.get("first")
            await until(lambda: one.l2("stored") == 1)
            server.freeze()
            limits.clear()
            for i in range(3):
                began = time.perf_counter()
                assert (await one.get(f"slow {i}", "first")).source == "embedded"
                assert time.perf_counter() - began > TIMEOUT_S * 0.9
            assert limits.count(TIMEOUT_S) == 3
            assert breaker_state(one.metrics) != CLOSED
            assert (await one.get("fast", "first")).source == "embedded"
            assert (one.l2("timeout"), one.l2("skipped")) == (3, 1)
            server.thaw()
            await until(lambda: breaker_state(one.metrics) == CLOSED)
            await until(lambda: one.l2("stored") == 5)  # what was embedded meanwhile, too
        async with process(server.url) as two:
            assert (await two.get("first", "slow 0", "slow 1", "slow 2", "fast")).source == "l2"


async def test_redis_dies_and_comes_back_empty() -> None:
    with redis_server() as server:
        async with process(server.url, timeout_s=TIMEOUT_S) as one:
            await one.get("a")
            await until(lambda: one.l2("stored") == 1)
            server.kill()
            for i in range(5):
                assert (await one.get("a", f"b{i}")).tensor.shape == (2, WIDTH)
            assert breaker_state(one.metrics) == OPEN
            server.start()
            await until(lambda: breaker_state(one.metrics) == CLOSED)
            await until(lambda: one.l2("stored") == 6)
            assert server.client().dbsize() == 5
