import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.caches.redis_store import RedisStore
from service.errors import ConflictError, NotFoundError, StoreUnavailableError
from service.observability.metrics import Metrics
from service.schemas.classes import ClassEntry
from service.vocabularies import catalog as module
from service.vocabularies import shared_store
from service.vocabularies.catalog import Vocabularies
from service.vocabularies.shared_store import _WRITE, KEY
from service.vocabularies.stored_vocabulary import StoredVocabulary, checked, encoded
from tests.service.caches.redis_server import RedisServer
from tests.service.hot_loading.stores import Clock, count
from tests.service.vocabularies.vocabulary_lists import ENTRIES, ONE, own_sizes
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio


@dataclass
class Switched:
    """Redis that can be made to be away, to wait, or to give another answer."""

    store: RedisStore
    away: bool = False
    gate: asyncio.Event | None = None
    lie: Any = None
    lies_about: bytes = b""  # the script that is answered so; every one if empty
    calls: int = 0

    async def command(self, *args: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreUnavailableError
        answer = await self.store.command(*args)
        return answer if self.lie is None or self.lies_about not in (b"", args[1]) else self.lie


@dataclass
class Process:
    """One of the service's processes, as far as vocabularies go."""

    vocabularies: Vocabularies
    redis: Switched
    metrics: Metrics
    clock: Clock = field(default_factory=Clock)

    def counted(self, tier: str, result: str) -> float:
        return count(self.metrics, result, tier=tier, cache="vocabulary")


@asynccontextmanager
async def process(redis: RedisServer, clock: Clock, **values: Any) -> AsyncIterator[Process]:
    metrics = Metrics()
    store = RedisStore(redis.url, timeout_s=1.0, metrics=metrics)
    await store.start()
    try:
        switched = Switched(store)
        made = Vocabularies(switched, metrics, clock=clock, **{"max_classes": 1024, **values})
        yield Process(made, switched, metrics, clock)
    finally:
        await store.stop()


@asynccontextmanager
async def processes(redis: RedisServer) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes and one clock, on one Redis."""
    clock = Clock()
    async with process(redis, clock) as first, process(redis, clock) as second:
        yield first, second


async def test_processes_see_each_others_lists(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        stored, created = await first.vocabularies.put("mine", ENTRIES)
        assert created
        assert await second.vocabularies.get("mine") == stored
        assert await own_sizes(second.vocabularies) == {"mine": 3}
        assert not (await second.vocabularies.put("mine", ONE))[1]
        assert len((await second.vocabularies.get("mine")).classes) == 1
        assert len((await first.vocabularies.get("mine")).classes) == 3  # its copy is 0 s old
        first.clock.now += 1.6
        assert len((await first.vocabularies.get("mine")).classes) == 1
        assert await own_sizes(first.vocabularies) == {"mine": 1}
        await first.vocabularies.delete("mine")
        second.clock.now += 1.6
        with pytest.raises(NotFoundError):
            await second.vocabularies.get("mine")
        with pytest.raises(NotFoundError):
            await second.vocabularies.delete("mine")
        assert await own_sizes(second.vocabularies) == {}
        assert [first.counted("l2", result) for result in ("stored", "hit", "miss")] == [1, 1, 0]
        assert [second.counted("l2", result) for result in ("stored", "hit", "miss")] == [1, 1, 1]
        assert first.counted("l1", "hit") == 1


async def test_a_fresh_copy_spares_redis_the_question(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        await first.vocabularies.put("mine", ENTRIES)
        for _ in range(10):
            await second.vocabularies.get("mine")
            await second.vocabularies.summaries()
            with pytest.raises(NotFoundError):
                await second.vocabularies.get("none")
        assert second.redis.calls == 3
        before = await second.vocabularies.get("mine")
        second.clock.now += 2
        assert await second.vocabularies.get("mine") is before  # the same bytes are not parsed again
        assert second.redis.calls == 4


async def test_many_readers_at_once_ask_once(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        await first.vocabularies.put("mine", ENTRIES)
        second.redis.gate = asyncio.Event()
        readers = [asyncio.create_task(second.vocabularies.get("mine")) for _ in range(20)]
        await asyncio.sleep(0.01)
        readers[0].cancel()  # the one that asks: another one does it then
        await asyncio.sleep(0.01)
        second.redis.gate.set()
        answers = await asyncio.gather(*readers, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, StoredVocabulary) for answer in answers[1:])
        assert second.redis.calls == 2
        assert (second.counted("l1", "miss"), second.counted("l1", "joined")) == (2, 18)


async def test_reads_go_on_while_redis_is_away_for_some_minutes(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, _):
        stored, _ = await first.vocabularies.put("mine", ENTRIES)
        await first.vocabularies.summaries()
        with pytest.raises(NotFoundError):
            await first.vocabularies.get("none")
        first.redis.away = True
        first.clock.now += 200
        assert await first.vocabularies.get("mine") is stored
        assert await own_sizes(first.vocabularies) == {"mine": 3}
        for name in ("none", "other"):  # what was not there may be there now
            with pytest.raises(StoreUnavailableError) as caught:
                await first.vocabularies.get(name)
        assert caught.value.retry_after == 1
        assert (await first.vocabularies.get("voc-20")).builtin
        first.clock.now += 101
        with pytest.raises(StoreUnavailableError):
            await first.vocabularies.get("mine")
        with pytest.raises(StoreUnavailableError):
            await first.vocabularies.summaries()
        first.redis.away = False
        first.clock.now += 1
        assert await first.vocabularies.get("mine") == stored


async def test_reads_leave_redis_alone_for_a_moment_after_a_failure(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, _):
        first.redis.away = True
        readers = [first.vocabularies.get(name) for name in ("a", "a", "a", "b", "c")]
        answers = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
        assert first.redis.calls == 3  # one a name: whoever waits for the same answer asks no more
        assert (first.counted("l2", "error"), first.counted("l2", "skipped")) == (3, 2)
        first.redis.away = False
        with pytest.raises(StoreUnavailableError):
            await first.vocabularies.get("a")
        await first.vocabularies.put("a", ONE)  # writes always try, and tell readers
        assert (await first.vocabularies.get("a")).entries == ONE


async def test_writes_need_redis_and_are_never_half(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        stored, _ = await first.vocabularies.put("mine", ENTRIES)
        first.redis.away = True
        for change in (first.vocabularies.put("mine", ONE), first.vocabularies.delete("mine")):
            with pytest.raises(StoreUnavailableError):
                await change
        assert await first.vocabularies.get("mine") is stored  # stale, but all there is
        first.redis.away = False
        first.clock.now += 1
        assert await first.vocabularies.get("mine") == await second.vocabularies.get("mine") == stored
        assert first.counted("l2", "stored") == 1


async def test_a_write_without_an_answer_makes_the_next_read_ask(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        await first.vocabularies.put("mine", ENTRIES)
        await first.vocabularies.summaries()
        first.redis.lie, first.redis.lies_about = (
            "gone",
            _WRITE,
        )  # the command went through, its answer did not
        with pytest.raises(StoreUnavailableError):
            await first.vocabularies.put("mine", ONE)
        first.redis.lie = None
        first.clock.now += 1.0  # the copy would be fresh for another half second
        assert len((await first.vocabularies.get("mine")).classes) == 1
        assert await own_sizes(first.vocabularies) == {"mine": 1}
        assert len((await second.vocabularies.get("mine")).classes) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        b"x" * (module.MOST_BYTES_EACH + 1),
        b'{"classes":[{"name":"a"}],"name":"mine","size":1}',
    ],
)
async def test_a_damaged_list_is_reported_and_can_be_put_again(
    empty_redis: RedisServer, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with processes(empty_redis) as (first, second):
        await first.vocabularies.put("other", ONE)
        await first.redis.store.command("HSET", KEY, "mine", raw)
        await first.redis.store.command("HSET", KEY, "Not A Name", encoded(checked("mine", ONE)))
        with caplog.at_level(logging.WARNING, "service.vocabularies.catalog"):
            for _ in range(3):
                with pytest.raises(NotFoundError, match=r"damaged.*PUT it again"):
                    await first.vocabularies.get("mine")
        assert len(caplog.records) == 1
        assert first.counted("l2", "corrupt") == 1
        sizes = await own_sizes(second.vocabularies)
        assert sizes == {"other": 1} | ({"mine": 1} if raw.startswith(b"{") else {})
        _, created = await first.vocabularies.put("mine", ENTRIES)
        assert not created
        assert (await second.vocabularies.get("mine")).entries == ENTRIES
        assert (await first.vocabularies.get("mine")).entries == ENTRIES


async def test_a_damaged_list_can_be_deleted(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, _):
        await first.redis.store.command("HSET", KEY, "mine", b"garbage")
        await first.vocabularies.delete("mine")
        with pytest.raises(NotFoundError, match="no vocabulary of this name"):
            await first.vocabularies.get("mine")


@pytest.mark.parametrize("command", [("SET", KEY, b"garbage"), ("RPUSH", KEY, b"a", b"b")])
async def test_a_key_of_another_type_is_replaced(empty_redis: RedisServer, command: tuple[Any, ...]) -> None:
    async with processes(empty_redis) as (first, second):
        await first.redis.store.command(*command)
        for call in (first.vocabularies.get, first.vocabularies.delete):
            with pytest.raises(NotFoundError):
                await call("mine")
        assert await own_sizes(first.vocabularies) == {}
        assert (await first.vocabularies.put("mine", ENTRIES))[1]
        assert (await second.vocabularies.get("mine")).entries == ENTRIES


async def test_answers_without_sense_count_as_none(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, _):
        for lie in (7.5, {"a": 1}):
            first.redis.lie = lie
            for call in (
                first.vocabularies.get("mine"),
                first.vocabularies.summaries(),
                first.vocabularies.put("mine", ONE),
                first.vocabularies.delete("mine"),
            ):
                with pytest.raises(StoreUnavailableError):
                    await call
                first.clock.now += 2


async def test_redis_holds_a_number_of_lists_and_bytes(
    empty_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_store, "MOST", 2)
    async with processes(empty_redis) as (first, second):
        for name in ("a", "b", "a"):
            await first.vocabularies.put(name, ONE)
        with pytest.raises(ConflictError, match="full"):
            await second.vocabularies.put("c", ONE)
        await second.vocabularies.delete("a")
        await second.vocabularies.put("c", ONE)
        monkeypatch.setattr(shared_store, "MOST_BYTES", 2 * len(encoded(checked("c", ONE))))
        await second.vocabularies.put("b", ONE)
        with pytest.raises(ConflictError):
            await first.vocabularies.put("b", ENTRIES)
        assert await own_sizes(first.vocabularies) == {"b": 1, "c": 1}
        assert (await first.vocabularies.get("b")).entries == ONE


async def test_concurrent_changes_leave_one_of_them(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, second):
        lists = [tuple(ClassEntry(name=f"{n}-{i}") for i in range(n + 1)) for n in range(10)]
        changes = [(first, second)[n % 2].vocabularies.put("mine", lists[n]) for n in range(10)]
        created = [new for _, new in await asyncio.gather(*changes)]
        assert sum(created) == 1
        first.clock.now += 2
        found = [(await each.vocabularies.get("mine")).entries for each in (first, second)]
        assert found[0] == found[1]
        assert found[0] in lists
        assert await own_sizes(first.vocabularies) == {"mine": len(found[0])}


async def test_lists_outlive_redis_frozen_and_thawed(empty_redis: RedisServer) -> None:
    async with processes(empty_redis) as (first, _):
        stored, _ = await first.vocabularies.put("mine", ENTRIES)
        empty_redis.freeze()
        try:
            first.clock.now += 2
            assert await first.vocabularies.get("mine") is stored
            with pytest.raises(StoreUnavailableError):
                await first.vocabularies.get("other")
        finally:
            empty_redis.thaw()
        async with asyncio.timeout(WAIT):
            while True:
                first.clock.now += 2
                try:
                    await first.vocabularies.put("other", ONE)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.02)
        assert (await first.vocabularies.get("other")).entries == ONE
