"""The way to Redis: commands with a time limit, and whether it is worth asking at all.

Nothing that a request waits for finds out whether Redis is back; a probe in the background does.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from redis.exceptions import ClusterCrossSlotError, MovedError

from service.caches.breaker import Breaker, State
from service.redis.servers import CONNECT_S, PROBE_KEY, RedisServers, redis_servers
from service.setting_values.redis_url import redis_place

LOG = logging.getLogger(__name__)
T = TypeVar("T")

SLICES = 8  # of a time limit; one in which this event loop was busy is not held against Redis
LATE_S = 0.005  # a timer that fires later than that tells of a busy event loop
MOST_SLICES = 4 * SLICES  # that are waited, however busy it is
READERS = 4  # connections that lookups share
CLOSE_S = 0.5  # for each of the two steps of `close`
Command = tuple[str | bytes | int | float, ...]


class TooLateError(Exception):
    """No answer within the time allowed."""


class RedisLink:
    """Connections to Redis, and the breaker before them. Belongs to one event loop.

    Args:
        url: of the setting `redis_url`.
        timeout_s: a healthy Redis answers within that, seconds.
        breaker: opens after failures.
        on_change: notified of each new state of the breaker.

    Raises:
        ValueError: the URL cannot be used.
    """

    def __init__(self, url: str, *, timeout_s: float, breaker: Breaker, on_change: Callable[[State], None]):
        self._place = redis_place(url)
        redis_servers(self._place)
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._on_change = on_change
        self._servers: RedisServers | None = None  # from `open` to `close`
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reason = ""  # of the latest failure
        breaker.on_change = self._changed

    @property
    def opened(self) -> bool:
        """Whether it is between `open` and `close`."""
        return self._servers is not None

    @property
    def usable(self) -> bool:
        """Whether to ask at all: opened, and the breaker is closed."""
        return self.opened and self._breaker.closed

    def open(self) -> None:
        """Makes the first connection, in the background. Redis need not be there."""
        self._servers = redis_servers(self._place)
        self.spawn(self._greet())

    async def close(self) -> None:
        """Ends what is under way and closes all connections."""
        servers, self._servers = self._servers, None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CLOSE_S)
        if servers is not None:
            await _closed(servers)

    async def ask(self, *command: str | bytes | int | float) -> Any:
        """Redis' answer to one command; texts are bytes. No time limit of its own: see `within`."""
        execute: Callable[..., Awaitable[Any]] = self._connected().client.execute_command
        return await execute(*command)

    async def values(self, keys: Sequence[bytes]) -> Any:
        """What stands under keys, as MGET answers. No time limit of its own: see `within`."""
        return await self._connected().values(keys)

    async def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """Answers to commands sent together; a refused one's is its exception. See `within`."""
        async with self._connected().client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Waits for work that long; what is left of it then, or when the caller is cancelled, is ended.

        Time in which this event loop was busy with other things does not count, since an answer may lie
        unread meanwhile. Work that ends amid an answer closes its connection, so that no other command reads
        the rest. This never waits for that, nor for a cancelled connection attempt.

        Raises:
            TooLateError: the time is over, or the connections are closed.
        """
        task = self.spawn(work)
        slice_s, left = seconds / SLICES, SLICES
        try:
            for _ in range(MOST_SLICES):
                began = time.monotonic()
                await asyncio.wait([task], timeout=slice_s)
                left -= time.monotonic() - began <= slice_s + LATE_S
                if task.done() or not left:
                    break
        finally:
            late = not task.done()
            if late:
                task.cancel()
        if late or task.cancelled():  # cancelled by `close`
            raise TooLateError(f"no response within {seconds:g} s")
        return task.result()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs work in the background until `close`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def succeeded(self) -> None:
        """A lookup was answered in time."""
        self._breaker.succeeded()

    def failed(self, error: Exception) -> None:
        """Something was not answered; after a few times in a row Redis is left alone."""
        self._reason = _in_words(error)
        self._breaker.failed()

    def _connected(self) -> RedisServers:
        if self._servers is None:
            raise TooLateError("the connections to Redis are closed")
        return self._servers

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who waits has it as well; if nobody does, it is of no interest

    def _changed(self, state: State) -> None:
        if self._servers is not None:
            if state is State.OPEN:
                LOG.warning("Redis is left alone for %.1f s: %s", self._breaker.probe_in(), self._reason)
                self.spawn(self._probe())
            elif state is State.CLOSED:
                LOG.info("Redis answers again")
        self._on_change(state)

    async def _probe(self) -> None:
        await asyncio.sleep(self._breaker.probe_in())
        while not self._breaker.begin_probe():  # timers are early by their resolution at times
            await asyncio.sleep(0.001)
        ok = False
        try:
            ok = await self._answers()
        finally:
            self._breaker.end_probe(ok)

    async def _greet(self) -> None:
        if not await self._answers():
            self._breaker.failed()

    async def _answers(self) -> bool:
        """Whether Redis answers as fast as lookups need it; leaves the connections that they use.

        Connecting may take longer than a lookup waits, with TLS above all, so it has more time here.
        """
        try:
            await self.within(CONNECT_S, self._connected().greet(READERS))
            await self.within(self._timeout_s, self.values([PROBE_KEY]))
        except Exception as error:  # whatever the other side sent: it is no answer
            self._reason = _in_words(error)
            self._forget_nodes()
            return False
        return True

    def _forget_nodes(self) -> None:
        """Begins anew at the nodes of the URL: a client of a cluster forgets those that did not answer."""
        if self._servers is not None and self._servers.clustered:
            self.spawn(_closed(self._servers))
            self._servers = redis_servers(self._place)


async def _closed(servers: RedisServers) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await servers.aclose()
    except Exception as error:
        LOG.warning("a connection to Redis did not close: %s", error)


def _in_words(error: Exception) -> str:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, MovedError | ClusterCrossSlotError):
        return f"{words}; this is a cluster, whose URL begins with redis+cluster://"
    return words
