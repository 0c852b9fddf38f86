"""Changes to Redis that nobody waits for: a bounded queue, and a task that empties it in pipelines."""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from service.caches.redis_link import Command, RedisLink
from service.observability.metrics import Metrics

WRITE_S = 1.0  # one pipeline
DRAIN_S = 0.5  # at the end
PAUSE_S = 0.2  # after a pipeline that failed
MOST_CHANGES = 8192  # that wait
MOST_BYTES = 32 << 20
BATCH_CHANGES = 128  # of one pipeline; packing them holds up the event loop for milliseconds
BATCH_BYTES = 1 << 20
MOST_TRIES = 5  # of one change, where the connection failed
JITTER = 0.1  # of a time to live, so that what was written together does not go together


@dataclass(slots=True)
class Change:
    """One change.

    Attributes:
        value: None deletes.
        ttl_s: nominal time to live, seconds.
        cache: the label to count under.
        tries: so far.
    """

    value: bytes | None
    ttl_s: float
    cache: str
    tries: int = 0

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return 0 if self.value is None else len(self.value)

    def command(self, key: bytes) -> Command:
        """What makes the change."""
        if self.value is None:
            return ("UNLINK", key)
        milliseconds = self.ttl_s * 1000 * random.uniform(1 - JITTER, 1 + JITTER)
        return ("SET", key, self.value, "PX", max(1, round(milliseconds)))


class WriteBehind:
    """Makes changes in the order in which they came; of two to one key, only the newer.

    They wait while Redis is left alone. Errors are counted and never raised.

    Args:
        link: to Redis.
        metrics: counts what was stored, dropped, or failed.
    """

    def __init__(self, link: RedisLink, metrics: Metrics):
        self._link = link
        self._metrics = metrics
        self._changes: OrderedDict[bytes, Change] = OrderedDict()
        self._bytes = 0
        self._stopping = False
        self._go = asyncio.Event()  # set when there is something to do
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to write, in the background."""
        self._task = self._link.spawn(self._write_forever())

    async def stop(self) -> None:
        """Writes what waits if that goes quickly, drops and counts the rest."""
        self._stopping = True
        self.wake()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=DRAIN_S)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=DRAIN_S)
        while self._changes:
            self._count(self._take_one()[1], "dropped")

    def put(self, key: bytes, change: Change) -> None:
        """Queues a change, or drops and counts it where there is no room."""
        self._remove(key)
        full = len(self._changes) >= MOST_CHANGES or self._bytes + change.size > MOST_BYTES
        if full or self._stopping:
            self._count(change, "dropped")
            return
        self._changes[key] = change
        self._bytes += change.size
        self.wake()

    def wake(self) -> None:
        """Looks anew whether there is something to do; for when the link becomes usable."""
        if self._stopping or (self._changes and self._link.usable):
            self._go.set()
        else:
            self._go.clear()

    async def _write_forever(self) -> None:
        while True:
            await self._go.wait()
            if self._stopping and not (self._changes and self._link.usable):
                return
            batch = self._take()
            try:
                written = await self._write(batch)
            except asyncio.CancelledError:
                for change in batch.values():
                    self._count(change, "dropped")
                raise
            if not written:
                await asyncio.sleep(PAUSE_S)
            self.wake()

    async def _write(self, batch: Mapping[bytes, Change]) -> bool:
        """Makes changes; those that may not have reached Redis wait again, a few times."""
        commands = [change.command(key) for key, change in batch.items()]
        try:
            answers = await self._link.within(WRITE_S, self._link.ask_all(commands))
        except Exception as error:
            self._link.failed(error)
            for key, change in batch.items():
                self._again(key, change)
            return False
        for change, answer in zip(batch.values(), answers, strict=True):
            if isinstance(answer, Exception):  # Redis is there, and does not want this: full, read-only
                self._count(change, "error")
            elif change.value is not None:
                self._count(change, "stored")
        return True

    def _again(self, key: bytes, change: Change) -> None:
        change.tries += 1
        if change.tries >= MOST_TRIES:
            self._count(change, "error")
        elif key not in self._changes:  # otherwise a newer change waits
            self.put(key, change)

    def _take(self) -> dict[bytes, Change]:
        batch: dict[bytes, Change] = {}
        size = 0
        while self._changes and len(batch) < BATCH_CHANGES and size < BATCH_BYTES:
            key, change = self._take_one()
            batch[key] = change
            size += change.size
        return batch

    def _take_one(self) -> tuple[bytes, Change]:
        key, change = self._changes.popitem(last=False)
        self._bytes -= change.size
        return key, change

    def _remove(self, key: bytes) -> None:
        change = self._changes.pop(key, None)
        if change is not None:
            self._bytes -= change.size

    def _count(self, change: Change, result: str) -> None:
        self._metrics.cache_ops.labels(change.cache, "l2", result).inc()
