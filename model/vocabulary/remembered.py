"""Remembering what a function gave for callers' lists, within a bound that long lists cannot pass."""

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from cachetools import LRUCache

P = ParamSpec("P")
R = TypeVar("R")


def remembered(most: int, size: Callable[..., int]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Has a function remember what was used last; for any thread.

    Where `functools.lru_cache` counts calls, which may hold thousands of names each, this adds up sizes.

    Args:
        most: of all sizes; a call that is larger alone is not remembered.
        size: of a call, by its arguments, such as the number of its names.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        kept: LRUCache[Any, tuple[int, R]] = LRUCache(most, getsizeof=lambda entry: entry[0])
        lock = threading.Lock()

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            key = (args, tuple(sorted(kwargs.items())))
            with lock:
                found = kept.get(key)
            if found is None:
                found = 1 + size(*args, **kwargs), function(*args, **kwargs)
                if found[0] <= most:
                    with lock:
                        kept[key] = found
            return found[1]

        return call

    return decorated
