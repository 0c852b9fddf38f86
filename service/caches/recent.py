"""What was used last, within a number of bytes: cachetools' LRU, which also tells what had to go."""

from collections.abc import Callable
from typing import TypeVar

from cachetools import Cache, LRUCache

K = TypeVar("K")
V = TypeVar("V")


class Recent(LRUCache[K, V]):
    """Entries by key; those used longest ago make room. Not for several threads at a time.

    Args:
        max_bytes: of all entries.
        size_of: what an entry costs, bytes.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]):
        super().__init__(max_bytes, size_of)
        self._gone: list[V] = []

    def put(self, key: K, value: V) -> list[V] | None:
        """Keeps an entry in place of one of its key; what made room, or None if it is too large itself."""
        if self.getsizeof(value) > self.maxsize:
            return None
        self._gone = []
        self[key] = value
        gone, self._gone = self._gone, []
        return gone

    def peek(self, key: K) -> V | None:
        """An entry that does not count as used by this."""
        return Cache.__getitem__(self, key) if key in self else None

    def popitem(self) -> tuple[K, V]:
        """Removes the entry that was used longest ago."""
        key, value = super().popitem()
        self._gone.append(value)
        return key, value
