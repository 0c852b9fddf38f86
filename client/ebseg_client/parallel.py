"""Many things at a time, in threads, results in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # things a thread that may wait for their turn, done or not


def in_order(function: Callable[[T], R], items: Iterable[T], parallel: int) -> Generator[R, None, None]:
    """Results of a function, in the order of the items.

    Items are taken as places become free, so there may be any number of them. When the caller stops early,
    what runs is waited for and nothing more is begun.

    Args:
        function: run in threads; what it raises is raised here, at its turn.
        items: its arguments.
        parallel: threads.
    """
    with ThreadPoolExecutor(parallel, thread_name_prefix="ebseg") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD * parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
