"""The Redis store with a real server that is gone, frozen or full, and with one that lies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from service.caches import redis_store, write_behind
from service.caches.breaker import Breaker
from service.caches.redis_link import READERS
from service.errors import StoreUnavailableError
from service.redis.servers import CONNECT_S
from tests.service.caches.redis_server import redis_server
from tests.service.hot_loading.stores import (
    CLOSED,
    OPEN,
    PATIENT_S,
    TIMEOUT_S,
    breaker_state,
    count,
    get,
    limits_given,
    quick_breaker,
    started,
    timed,
    tripped,
)
from tests.waiting import WAIT, at_once, until

pytestmark = pytest.mark.anyio


# A server that is gone


async def test_refused_connections_open_the_breaker_and_a_probe_closes_it() -> None:
    with redis_server() as server:
        server.stop()
        quick = quick_breaker()
        async with started(server.url, timeout_s=PATIENT_S, breaker=quick) as (store, metrics):
            await tripped(store)
            assert breaker_state(metrics) == OPEN
            assert count(metrics, "timeout") == 0
            errors = count(metrics, "error")
            for _ in range(5):
                assert at_once(store.get_many([b"k", b"l"], cache="text")) is None
            assert count(metrics, "skipped") >= 10
            assert count(metrics, "error") == errors
            store.put_later({b"k": b"waited"}, ttl_s=60, cache="text")
            server.start()
            await until(lambda: breaker_state(metrics) == CLOSED)
            await until(lambda: count(metrics, "stored") == 1)
            assert await get(store, b"k") == [b"waited"]


async def test_a_restart_between_two_lookups_costs_nothing() -> None:
    with redis_server() as server:
        async with started(server.url, timeout_s=PATIENT_S) as (store, metrics):
            await asyncio.gather(*(get(store, b"k") for _ in range(READERS)))
            server.kill()
            server.start()
            await asyncio.sleep(0.02)
            for _ in range(READERS):
                assert await get(store, b"k") == [None]
            assert count(metrics, "error") == count(metrics, "timeout") == 0


async def test_writes_that_did_not_arrive_are_tried_again() -> None:
    with redis_server() as server:
        async with started(server.url, timeout_s=PATIENT_S) as (store, metrics):
            assert await get(store, b"k") == [None]
            server.kill()
            store.put_later({b"k": b"v"}, ttl_s=60, cache="text")
            await asyncio.sleep(0.05)
            server.start()
            await until(lambda: count(metrics, "stored") == 1)
            assert await get(store, b"k") == [b"v"]


async def test_the_queue_of_writes_is_bounded() -> None:
    with redis_server() as server:
        server.stop()
        async with started(server.url) as (store, metrics):
            await tripped(store)
            store.put_later({b"%d" % i: b"v" for i in range(10_000)}, ttl_s=60, cache="text")
            assert count(metrics, "dropped") == 10_000 - write_behind.MOST_CHANGES
            store.delete_later([b"more"], cache="text")
            assert count(metrics, "dropped") == 10_001 - write_behind.MOST_CHANGES
        assert count(metrics, "dropped") == 10_001
        async with started(server.url) as (store, metrics):
            await tripped(store)
            megabyte = bytes(1 << 20)
            store.put_later({b"%d" % i: megabyte for i in range(40)}, ttl_s=60, cache="text")
            assert count(metrics, "dropped") == 8
            store.delete_later([b"%d" % i for i in range(8)], cache="text")  # makes room
            store.put_later({b"x%d" % i: megabyte for i in range(9)}, ttl_s=60, cache="text")
            assert count(metrics, "dropped") == 9


# A server that does not answer


async def test_a_frozen_server_costs_the_timeout_three_times_and_then_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write_behind, "DRAIN_S", 0.05)
    limits = limits_given(monkeypatch)
    with redis_server() as server:
        client = server.client()
        client.mset({f"k{i}": f"v{i}" for i in range(10)})
        async with started(server.url, breaker=quick_breaker()) as (store, metrics):
            assert await get(store, b"k0") == [b"v0"]
            server.freeze()
            limits.clear()
            for i in range(3):
                values, seconds = await timed(store.get_many([b"k%d" % i], cache="text"))
                assert values is None
                assert seconds > TIMEOUT_S * 0.9
            assert limits.count(TIMEOUT_S) == 3
            assert count(metrics, "timeout") == 3
            assert breaker_state(metrics) == OPEN
            assert at_once(store.get_many([b"k3"], cache="text")) is None
            await until(lambda: CONNECT_S in limits)  # by a probe, which fails
            assert breaker_state(metrics) != CLOSED
            server.thaw()
            await until(lambda: breaker_state(metrics) == CLOSED)
            for i in range(10):  # and not the late answers to the questions from before
                assert await get(store, b"k%d" % i) == [b"v%d" % i]
            server.freeze()
            store.put_later({b"k": b"v"}, ttl_s=9, cache="text")
            await store.stop()  # Redis stays frozen: it does not wait for it
            assert count(metrics, "dropped") == 1


async def test_a_command_waits_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_store.COMMAND_S == 1.0
    limits = limits_given(monkeypatch)
    with redis_server() as server:
        async with started(server.url) as (store, _):
            assert await store.command("PING")
            server.freeze()
            limits.clear()
            monkeypatch.setattr(redis_store, "COMMAND_S", 0.1)
            with pytest.raises(StoreUnavailableError):
                await store.command("GET", "k")
            assert limits == [0.1]


async def test_a_value_too_long_to_read_is_deleted() -> None:
    with redis_server() as server:
        client = server.client()
        client.setrange("huge", 48 << 20, b"x")
        client.set("good", b"1")
        async with started(server.url, timeout_s=0.006) as (store, metrics):
            assert await get(store, b"good", b"huge") is None
            await until(lambda: count(metrics, "corrupt") == 1)
            assert not client.exists("huge")
        async with started(server.url, timeout_s=PATIENT_S) as (store, metrics):
            assert await get(store, b"good", b"huge") == [b"1", None]


# A server that refuses or lies


async def test_a_full_or_read_only_server_still_answers_lookups() -> None:
    with redis_server() as server:
        client = server.client()
        client.set("k", b"v")
        async with started(server.url, timeout_s=PATIENT_S) as (store, metrics):
            client.config_set("maxmemory", 1)
            store.put_later({b"a": b"1", b"b": b"2"}, ttl_s=9, cache="text")
            await until(lambda: count(metrics, "error") == 2)
            client.config_set("maxmemory", 0)
            client.replicaof("127.0.0.1", "1")
            store.put_later({b"a": b"1"}, ttl_s=9, cache="text")
            await until(lambda: count(metrics, "error") == 3)
            with pytest.raises(StoreUnavailableError, match="refuses"):
                await store.command("SET", "a", "1")
            assert await get(store, b"k", b"a") == [b"v", None]
            assert breaker_state(metrics) == CLOSED
            client.config_set("replica-serve-stale-data", "no")
            await tripped(store)  # now lookups are refused as well
            assert breaker_state(metrics) == OPEN


@contextlib.asynccontextmanager
async def liar(answer: bytes | None, after_s: float = 0.0) -> AsyncIterator[str]:
    """A server that answers anything with the same bytes, or with the last word it received; its URL."""

    handlers: set[asyncio.Task[None]] = set()

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while received := await reader.read(1 << 16):
                await asyncio.sleep(after_s)
                word = received.split(b"\r\n")[-2]
                writer.write(b"*1\r\n$%d\r\n%s\r\n" % (len(word), word) if answer is None else answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(answer_all(reader, writer), name="liar"))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
        if handlers:
            await asyncio.wait(handlers, timeout=WAIT)


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-ERR unknown command 'MGET'\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"$1\r\na\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$abc\r\n",
        b"\0" * 100 + b"\r\n",
        b"*1\r\n$500000000\r\nabc",
        b"*1000000000\r\n$-1\r\n",
    ],
)
async def test_whatever_it_answers_is_no_answer(answer: bytes) -> None:
    async with liar(answer) as url, started(url) as (store, metrics):
        for _ in range(3):
            assert await get(store, b"k") is None
        assert breaker_state(metrics) == OPEN
        assert count(metrics, "error") + count(metrics, "timeout") >= 2


async def test_a_list_for_a_value_is_a_miss() -> None:
    async with liar(b"*1\r\n" * 50 + b":1\r\n") as url, started(url, timeout_s=PATIENT_S) as (store, _):
        assert await get(store, b"k") == [None]


async def test_late_answers_are_never_read_as_another_lookups() -> None:
    patient = Breaker(failures=99)
    late = liar(None, after_s=0.08)
    async with late as url, started(url, timeout_s=0.05, breaker=patient) as (store, metrics):
        for number in range(4):
            own = b"k%d" % number  # which a machine so busy that its clocks are late as well may let it have
            assert await get(store, own) in (None, [own])
            await asyncio.sleep(0.06)  # the answer comes amid the next lookup
        assert count(metrics, "timeout") > 0
