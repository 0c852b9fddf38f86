"""The Redis store with a real server that is there, and ways to reach it."""

import asyncio
from pathlib import Path

import pytest
import redis

from service.bench.process import free_port
from service.caches.redis_link import READERS
from service.caches.redis_store import RedisStore
from service.errors import StoreUnavailableError
from service.observability.metrics import Metrics
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.certificates import self_signed
from tests.service.hot_loading.stores import (
    CLOSED,
    OPEN,
    PATIENT_S,
    breaker_state,
    count,
    get,
    quick_breaker,
    started,
    tripped,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio


# A server that is there


async def test_one_command_for_all_keys(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    client.mset({"a": b"1", "b": bytes(range(256))})
    client.rpush("list", "x")
    client.config_resetstat()

    def calls() -> int:
        stats = client.info("commandstats").get("cmdstat_mget", {"calls": 0})
        asked: int = stats["calls"]
        return asked

    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, metrics):
        greeting = 2 + READERS  # each connects, and the last is timed
        await until(lambda: calls() == greeting)
        assert await get(store, b"a", b"none", b"list", b"b") == [b"1", None, None, bytes(range(256))]
        assert await get(store) == []
        assert calls() == greeting + 1
        assert "cmdstat_client" not in client.info("commandstats")
        assert breaker_state(metrics) == CLOSED
        seconds = {"cache": "text", "tier": "l2"}
        assert metrics.registry.get_sample_value("ebseg_cache_duration_seconds_count", seconds) == 1


async def test_writes_come_later_with_a_jittered_time_to_live(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    entries = {b"k%d" % i: b"v%d" % i for i in range(300)}
    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, metrics):
        store.put_later(entries, ttl_s=1000, cache="text")
        assert client.dbsize() == 0
        await until(lambda: count(metrics, "stored") == 300)
        assert await get(store, *entries) == list(entries.values())
        lives = [client.pttl(key) for key in entries]
    assert min(lives) > 890_000
    assert max(lives) <= 1_100_000
    assert max(lives) - min(lives) > 100_000


async def test_the_newest_change_of_a_key_wins(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    client.mset({"gone": "1", "repaired": "1"})
    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, metrics):
        store.delete_later([b"gone", b"repaired", b"never"], cache="text")
        store.put_later({b"repaired": b"2", b"taken back": b"1"}, ttl_s=9, cache="text")
        store.delete_later([b"taken back"], cache="text")
        await until(lambda: count(metrics, "stored") == 1 and not client.exists("gone"))
        assert await get(store, b"gone", b"repaired", b"taken back") == [None, b"2", None]
        assert count(metrics, "stored") == 1


async def test_stop_writes_what_waits(empty_redis: RedisServer) -> None:
    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, metrics):
        store.put_later({b"k%d" % i: b"v" for i in range(1000)}, ttl_s=9, cache="text")
    assert empty_redis.client().dbsize() == 1000
    assert count(metrics, "stored") == 1000
    store.put_later({b"late": b"v"}, ttl_s=9, cache="text")
    assert count(metrics, "dropped") == 1
    assert await get(store, b"k1") is None
    with pytest.raises(StoreUnavailableError):
        await store.command("GET", "k1")


async def test_many_lookups_at_once_share_few_connections(empty_redis: RedisServer) -> None:
    client = empty_redis.client()
    client.mset({f"k{i}": f"v{i}" for i in range(100)})
    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, _):
        before = client.info("stats")["total_connections_received"]
        values = await asyncio.gather(*(get(store, b"k%d" % i) for i in range(100)))
        assert values == [[b"v%d" % i] for i in range(100)]
        assert client.info("stats")["total_connections_received"] - before <= READERS


async def test_a_cancelled_caller_leaves_nothing_behind(empty_redis: RedisServer) -> None:
    empty_redis.client().mset({"a": b"1", "b": b"2"})
    async with started(empty_redis.url, timeout_s=PATIENT_S) as (store, metrics):
        for _ in range(20):
            task = asyncio.create_task(get(store, b"a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            assert await get(store, b"b") == [b"2"]
        assert breaker_state(metrics) == CLOSED


async def test_command(empty_redis: RedisServer) -> None:
    empty_redis.client().rpush("list", "x")
    async with started(empty_redis.url) as (store, metrics):
        assert await store.command("SET", b"name", "value") is True
        assert await store.command("GET", b"name") == b"value"
        assert await store.command("GET", "none") is None
        for _ in range(5):  # that a command is refused says nothing against the server
            with pytest.raises(StoreUnavailableError, match="refuses"):
                await store.command("GET", "list")
        assert breaker_state(metrics) == CLOSED


# Ways to reach it


async def test_password_by_url_and_a_wrong_one() -> None:
    with redis_server(password="s3cret") as server:
        async with started(server.url, timeout_s=PATIENT_S) as (store, _):
            assert await get(store, b"k") == [None]
        async with started(server.url.replace("s3cret", "wrong")) as (store, metrics):
            for _ in range(3):
                assert await get(store, b"k") is None
            assert breaker_state(metrics) == OPEN
            assert count(metrics, "error") >= 2  # the greeting was a failure, too
            with pytest.raises(StoreUnavailableError):
                await store.command("GET", "k")


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with redis_server("--unixsocket", str(path)) as server:
        server.client().set("k", "v")
        async with started(f"unix://{path}", timeout_s=PATIENT_S) as (store, _):
            assert await get(store, b"k") == [b"v"]


async def test_tls(tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    self_signed(certificate, key)
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with redis_server(*options, "--tls-auth-clients", "no", password="s3cret") as server:
        url = f"rediss://:s3cret@127.0.0.1:{port}/0"
        async with started(url, breaker=quick_breaker()) as (store, metrics):
            await tripped(store)  # the certificate is nobody's that this client trusts
            assert breaker_state(metrics) == OPEN
            assert server.client().info("commandstats").get("cmdstat_mget") is None
        async with started(f"{url}?ssl_ca_certs={certificate}", timeout_s=PATIENT_S) as (store, metrics):
            await until(lambda: server.client().info("commandstats").get("cmdstat_mget"))
            assert await get(store, b"k") == [None]
            store.put_later({b"k": b"v"}, ttl_s=9, cache="text")
            await until(lambda: count(metrics, "stored") == 1)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost?nonsense=1"])
async def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis_url|nonsense"):
        RedisStore(url, timeout_s=1, metrics=Metrics())


def test_without_the_program_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match="make tools"), redis_server():
        pass


def test_the_server_of_tests_restarts_freezes_and_ends() -> None:
    with redis_server() as server:
        client = server.client()
        client.set("k", "v")
        server.stop()
        with pytest.raises(redis.ConnectionError):
            client.get("k")
        server.start()
        assert client.get("k") is None
        server.freeze()
        server.kill()
        server.start()
        server.freeze()
        server.thaw()
        assert client.ping()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    client.close()
