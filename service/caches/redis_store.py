"""Redis behind the caches: a lookup that fails costs little time, and changes are written later.

Lookups come back within a set time whatever Redis does, and a circuit breaker takes that time away, too,
once Redis has failed a few times in a row. Belongs to one event loop.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from service.caches.breaker import Breaker, State
from service.caches.redis_link import READERS, RedisLink, TooLateError
from service.caches.write_behind import Change, WriteBehind
from service.errors import StoreUnavailableError
from service.observability.metrics import Metrics

LOG = logging.getLogger(__name__)

COMMAND_S = 1.0  # of `command`
INSPECT_S = 5.0  # Redis itself may be busy for seconds with a value of hundreds of megabytes
BATCH_BYTES = 128 << 10  # that one command is expected to bring; much more comes late, and holds up others
BATCH_KEYS = 128  # of one command
VALUE_BYTES = 4 << 10  # of a value whose length nobody knows
MOST_WAITS = 40  # a lookup of many commands, waiting for others included, takes at most so many time limits
LONGEST_VALUE = 64 << 10  # bytes; no cache writes a longer one


class RedisStore:
    """Redis, wherever it is. `start` it before use and `stop` it at the end; it need not be there for either.

    Args:
        url: of the setting `redis_url`.
        timeout_s: what one round trip may take; a long list takes several.
        metrics: counts every outcome, in entries.
        breaker: decides when Redis is left alone; with its defaults if left out.

    Raises:
        ValueError: the URL cannot be used.
    """

    def __init__(self, url: str, *, timeout_s: float, metrics: Metrics, breaker: Breaker | None = None):
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._link = RedisLink(
            url, timeout_s=timeout_s, breaker=breaker or Breaker(), on_change=self._breaker_changed
        )
        self._writes = WriteBehind(self._link, metrics)
        self._readers = asyncio.Semaphore(READERS)
        self._inspecting = False
        metrics.breaker_state.set(State.CLOSED)

    async def start(self) -> None:
        """Makes a first connection and begins to write, both in the background; returns at once."""
        self._link.open()
        self._writes.start()

    async def stop(self) -> None:
        """Writes what waits if that goes quickly, and closes all connections."""
        await self._writes.stop()
        await self._link.close()

    async def get_many(
        self, keys: Sequence[bytes], *, cache: str, value_bytes: int = VALUE_BYTES
    ) -> list[bytes | None] | None:
        """Looks keys up, with a command for each batch of them.

        Args:
            keys: of Redis.
            cache: the label to count under.
            value_bytes: how long a value is likely to be; batches are made by it.

        Returns:
            A value or None for each key, up to where Redis did not answer in time, answered with an error, or
            was left alone; None instead of an empty list. Never raises.
        """
        if not keys:
            return []
        found: list[bytes | None] = []
        asked = False
        began = time.perf_counter()
        size = max(1, min(BATCH_KEYS, BATCH_BYTES // value_bytes))
        while len(found) < len(keys):
            async with self._readers:  # to wait for one's turn is no fault of Redis
                if not self._link.usable:
                    self._count(cache, "skipped", len(keys) - len(found))
                    break
                if time.perf_counter() - began > MOST_WAITS * self._timeout_s:
                    self._count(cache, "timeout", len(keys) - len(found))
                    break
                asked = True
                values = await self._round_trip(keys[len(found) : len(found) + size], cache)
            if values is None:
                if (rest := len(keys) - len(found) - size) > 0:
                    self._count(cache, "skipped", rest)
                break
            found += values
        if asked:
            self._metrics.cache_seconds.labels(cache, "l2").observe(time.perf_counter() - began)
        return found or None

    async def _round_trip(self, keys: Sequence[bytes], cache: str) -> list[bytes | None] | None:
        try:
            values = await self._link.within(self._timeout_s, self._mget(keys))
        except TooLateError as error:
            self._count(cache, "timeout", len(keys))
            self._link.failed(error)
            self._inspect_soon(keys, cache)
            return None
        except Exception as error:  # whatever the other side sent: it is no answer
            self._count(cache, "error", len(keys))
            self._link.failed(error)
            return None
        self._link.succeeded()
        return values

    def put_later(self, entries: Mapping[bytes, bytes], *, ttl_s: float, cache: str) -> None:
        """Writes entries soon, off the caller's path. Drops and counts what the queue has no room for.

        Args:
            entries: values by key.
            ttl_s: how long they live, seconds; each gets 0.9 to 1.1 times as long.
            cache: the label to count under.
        """
        for key, value in entries.items():
            self._writes.put(key, Change(value=value, ttl_s=ttl_s, cache=cache))

    def delete_later(self, keys: Sequence[bytes], *, cache: str) -> None:
        """Deletes entries soon, off the caller's path; a later `put_later` of a key goes over it."""
        for key in keys:
            self._writes.put(key, Change(value=None, ttl_s=0.0, cache=cache))

    async def command(self, *args: str | bytes | int | float) -> Any:
        """Runs one command that the caller cannot do without.

        Returns:
            Redis' answer in the shape that redis-py gives it; texts are bytes.

        Raises:
            StoreUnavailableError: Redis does not answer within a second, is left alone at present, or
                refuses the command.
        """
        if not self._link.usable:
            raise StoreUnavailableError()
        try:
            return await self._link.within(COMMAND_S, self._link.ask(*args))
        except ResponseError as error:  # it is there, and does not want this: full, read-only
            LOG.warning("Redis refused %s: %s", args[0], error)
            raise StoreUnavailableError("the store of vocabularies refuses the command") from error
        except Exception as error:
            self._link.failed(error)
            raise StoreUnavailableError() from error

    async def _mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values = await self._link.values(keys)
        if not isinstance(values, list) or len(values) != len(keys):
            raise ResponseError("MGET was not answered with one value a key")
        return [value if isinstance(value, bytes) else None for value in values]

    def _breaker_changed(self, state: State) -> None:
        self._metrics.breaker_state.set(state)
        self._writes.wake()

    def _inspect_soon(self, keys: Sequence[bytes], cache: str) -> None:
        if not self._inspecting and self._link.opened:
            self._inspecting = True
            self._link.spawn(self._inspect(keys, cache))

    async def _inspect(self, keys: Sequence[bytes], cache: str) -> None:
        """Deletes values longer than any cache writes: one would make each lookup of it time out."""
        try:
            ask_lengths = self._link.ask_all([("STRLEN", key) for key in keys])
            lengths = await self._link.within(INSPECT_S, ask_lengths)
            pairs = zip(keys, lengths, strict=True)
            long = [key for key, length in pairs if isinstance(length, int) and length > LONGEST_VALUE]
            if long:
                await self._link.within(INSPECT_S, self._link.ask_all([("UNLINK", key) for key in long]))
                self._count(cache, "corrupt", len(long))
        except Exception as error:
            LOG.info("Redis was not asked for lengths of values: %s", error)
        finally:
            self._inspecting = False

    def _count(self, cache: str, result: str, entries: int) -> None:
        self._metrics.cache_ops.labels(cache, "l2", result).inc(entries)
