"""Where users' class lists are kept: in this process, or in Redis for all processes.

Both hold at most MOST lists of MOST_BYTES together, and know nothing of what a list is made of.
"""

import re
import time
from collections.abc import Callable
from types import UnionType
from typing import Any, Protocol

from service.errors import ConflictError, StoreUnavailableError
from service.observability.metrics import Metrics

KEY = b"ebseg:vocabularies:v1"  # a hash: name -> list
MOST = 1000
MOST_BYTES = 64 << 20
PAUSE_S = 1.0  # after Redis gave no answer, reads do without it for so long
_SIZE = rb'"size":(\d{1,4})}$'  # the end of a list as it is stored
_SIZE_BYTES = 16  # that end has at most so many

# Each is atomic. A key that is no hash is not ours: it holds nothing, and a new list replaces it.
_READ = b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return false end
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) > tonumber(ARGV[2]) then return '' end
return redis.call('HGET', KEYS[1], ARGV[1])
"""
_WRITE = b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local bytes = #ARGV[2] - redis.call('HSTRLEN', KEYS[1], ARGV[1])
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  bytes = bytes + redis.call('HSTRLEN', KEYS[1], name)
end
local number = redis.call('HLEN', KEYS[1]) + 1 - redis.call('HEXISTS', KEYS[1], ARGV[1])
if number > tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then return -1 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
"""
_REMOVE = b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_ENDS = b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {} end
local found = {}
for index, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if index > tonumber(ARGV[1]) then break end
  if #name <= 100 then
    table.insert(found, name)
    table.insert(found, string.sub(redis.call('HGET', KEYS[1], name), -tonumber(ARGV[2])))
  end
end
return found
"""


class Commands(Protocol):
    """What is needed of Redis."""

    async def command(self, *args: Any) -> Any:
        """Runs one command.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """


class LocalStore:
    """Lists of this process."""

    shared = False

    def __init__(self) -> None:
        self._lists: dict[str, bytes] = {}

    async def read(self, name: str) -> bytes | None:
        """The list of a name."""
        return self._lists.get(name)

    async def write(self, name: str, raw: bytes) -> bool:
        """Adds or replaces a list; says whether the name is new.

        Raises:
            ConflictError: there is no room for it.
        """
        created = name not in self._lists
        held = sum(map(len, self._lists.values())) - len(self._lists.get(name, b""))
        if len(self._lists) + created > MOST or held + len(raw) > MOST_BYTES:
            raise _full()
        self._lists[name] = raw
        return created

    async def remove(self, name: str) -> bool:
        """Removes a list; says whether there was one."""
        return self._lists.pop(name, None) is not None

    async def sizes(self) -> dict[str, int]:
        """Number of classes of each list."""
        return _sizes([part for name, raw in self._lists.items() for part in (name.encode(), raw)])


class SharedStore:
    """Lists in Redis; raises StoreUnavailableError while it is away.

    Args:
        redis: runs commands.
        metrics: where reads and writes are counted, as tier l2, and reads timed.
        clock: seconds that only go forward.
        most_bytes_each: longer lists are not ours, and never fetched.
    """

    shared = True

    def __init__(self, redis: Commands, metrics: Metrics, clock: Callable[[], float], most_bytes_each: int):
        self._redis = redis
        self._metrics = metrics
        self._clock = clock
        self._most_bytes_each = most_bytes_each
        self._away_until = -1.0

    async def read(self, name: str) -> bytes | None:
        """The list of a name; empty bytes for one that is too long."""
        raw: bytes | None = await self._ask(bytes | None, _READ, name.encode(), self._most_bytes_each)
        return raw

    async def write(self, name: str, raw: bytes) -> bool:
        """As of `LocalStore`; when it raises StoreUnavailableError, it may have taken place or not."""
        created = await self._run(int, _WRITE, name.encode(), raw, MOST, MOST_BYTES)
        if created < 0:
            raise _full()
        self._count("stored")
        return bool(created)

    async def remove(self, name: str) -> bool:
        """As of `LocalStore`; when it raises StoreUnavailableError, it may have taken place or not."""
        return bool(await self._run(int, _REMOVE, name.encode()))

    async def sizes(self) -> dict[str, int]:
        """Number of classes of each list; lists whose end is damaged are left out."""
        ends: list[bytes] = await self._ask(list, _ENDS, MOST, _SIZE_BYTES)
        found = _sizes(ends)
        damaged = len(ends) // 2 - len(found)
        if damaged:
            self._count("corrupt", damaged)
        return found

    async def _ask(self, kind: type | UnionType, script: bytes, *args: Any) -> Any:
        """Runs a script that changes nothing; not while Redis was found away a moment ago."""
        if self._clock() < self._away_until:
            self._count("skipped")
            raise StoreUnavailableError
        began = time.perf_counter()
        try:
            return await self._run(kind, script, *args)
        finally:
            self._metrics.cache_seconds.labels("vocabulary", "l2").observe(time.perf_counter() - began)

    async def _run(self, kind: type | UnionType, script: bytes, *args: Any) -> Any:
        try:
            answer = await self._redis.command("EVAL", script, 1, KEY, *args)
            if not isinstance(answer, kind):
                raise StoreUnavailableError("the store of vocabularies gave no sensible answer")
        except StoreUnavailableError:
            self._count("error")
            self._away_until = self._clock() + PAUSE_S
            raise
        self._away_until = -1.0
        return answer

    def _count(self, result: str, number: int = 1) -> None:
        self._metrics.cache_ops.labels("vocabulary", "l2", result).inc(number)


def _sizes(ends: list[bytes]) -> dict[str, int]:
    """From names, each followed by the end of its list."""
    sizes = {}
    for name, end in zip(ends[::2], ends[1::2], strict=True):
        size = re.search(_SIZE, end[-_SIZE_BYTES:])
        if size is not None and name.isascii():
            sizes[name.decode()] = int(size[1])
    return sizes


def _full() -> ConflictError:
    return ConflictError(
        f"the store is full: it holds {MOST} vocabularies or {MOST_BYTES >> 20} MiB; DELETE one first"
    )
