"""Users' class lists in Redis, for all processes: the fields of one hash, each change one atomic script."""

import hashlib
import time
from collections.abc import Callable
from types import UnionType
from typing import Any

from service.errors import StoreUnavailableError
from service.observability.metrics import Metrics
from service.vocabularies.store import (
    MOST,
    MOST_BYTES,
    ChangedError,
    Commands,
    Share,
    endings_of,
    owner_field,
    store_full,
)
from service.vocabularies.stored_vocabulary import END_BYTES, Ending

KEY = b"ebseg:vocabularies:v1"  # a hash: name -> list
PAUSE_S = 1.0  # after Redis gave no answer, reads do without it for so long

_CHANGED = -2  # what a script answers where `ChangedError` is raised
_SHARE_FULL = -3  # what it answers where a key's share is full
# What is held under ARGV[1], '' if longer than ARGV[2], compared with the sha1 of what was seen, ARGV[3].
_UNCHANGED = b"""
local held = false
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  held = redis.call('HGET', KEYS[1], ARGV[1])
  if held and #held > tonumber(ARGV[2]) then held = '' end
end
if (held and redis.sha1hex(held) or '') ~= ARGV[3] then return -2 end
"""
# Each is atomic. A key that is no hash is not ours: it holds nothing, and a new list replaces it.
_READ = b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return false end
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) > tonumber(ARGV[2]) then return '' end
return redis.call('HGET', KEYS[1], ARGV[1])
"""
_WRITE = (
    _UNCHANGED
    + b"""
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local number, bytes, own, own_bytes = 1, #ARGV[4], 1, #ARGV[4]
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if name ~= ARGV[1] then
    local length = redis.call('HSTRLEN', KEYS[1], name)
    number, bytes = number + 1, bytes + length
    if ARGV[7] ~= '' then
      local tail = string.sub(redis.call('HGET', KEYS[1], name), -tonumber(ARGV[10]))
      if string.find(tail, ARGV[7], 1, true) then own, own_bytes = own + 1, own_bytes + length end
    end
  end
end
local new = redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0
if (new and number > tonumber(ARGV[5])) or bytes > tonumber(ARGV[6]) then return -1 end
if ARGV[7] ~= '' and ((new and own > tonumber(ARGV[8])) or own_bytes > tonumber(ARGV[9])) then return -3 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
"""
)
_REMOVE = _UNCHANGED + b"return redis.call('HDEL', KEYS[1], ARGV[1])"
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

    async def read(self, name: str, *, insist: bool = False) -> bytes | None:
        """The list of a name; empty bytes for one that is too long.

        Args:
            name: of the list.
            insist: asks Redis though it was found away a moment ago.
        """
        ask = self._run if insist else self._ask
        raw: bytes | None = await ask(bytes | None, _READ, name.encode(), self._most_bytes_each)
        return raw

    async def write(self, name: str, raw: bytes, former: bytes | None, share: Share | None = None) -> None:
        """As of `LocalStore`; when it raises StoreUnavailableError, it may have taken place or not."""
        own = (b"", 0, 0) if share is None else (owner_field(share.owner), share.number, share.bytes)
        sizes = (MOST, MOST_BYTES, *own, END_BYTES)
        done = await self._run(int, _WRITE, *self._place(name, former), raw, *sizes)
        if done == _CHANGED:
            raise ChangedError
        if share is not None and done == _SHARE_FULL:
            raise share.refuse()
        if done < 0:
            raise store_full()
        self._count("stored")

    async def remove(self, name: str, former: bytes) -> None:
        """As of `LocalStore`; when it raises StoreUnavailableError, it may have taken place or not."""
        if await self._run(int, _REMOVE, *self._place(name, former)) == _CHANGED:
            raise ChangedError

    def _place(self, name: str, former: bytes | None) -> tuple[bytes, int, str]:
        seen = "" if former is None else hashlib.sha1(former, usedforsecurity=False).hexdigest()
        return name.encode(), self._most_bytes_each, seen

    async def endings(self) -> dict[str, Ending]:
        """Size and owner of each list; lists whose end is damaged are left out."""
        ends: list[bytes] = await self._ask(list, _ENDS, MOST, END_BYTES)
        found = endings_of(ends)
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
                raise StoreUnavailableError("the store of vocabularies gave no sensible response")
        except StoreUnavailableError:
            self._count("error")
            self._away_until = self._clock() + PAUSE_S
            raise
        self._away_until = -1.0
        return answer

    def _count(self, result: str, number: int = 1) -> None:
        self._metrics.cache_ops.labels("vocabulary", "l2", result).inc(number)
