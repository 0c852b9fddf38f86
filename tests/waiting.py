"""Waiting for what other tasks, threads and processes do, however busy the machine is.

No test measures how long that takes: the limits are when it gives up, many times what a slow machine needs.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

WAIT = 300.0  # seconds until a test gives up on an event, an answer or a small command
LONG_WAIT = 1800.0  # on a command that computes for long

T = TypeVar("T")


async def until(condition: Callable[[], object]) -> None:
    """Waits in an event loop until the condition holds."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.002)


def wait_until(
    condition: Callable[[], object], *, known: Callable[[], str] = lambda: "", pause: float = 0.002
) -> None:
    """Waits where there is no event loop until the condition holds.

    Args:
        condition: asked again and again.
        known: what is known when the test gives up.
        pause: seconds between two questions; longer ones for conditions that cost something.
    """
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, f"it did not happen in {WAIT:g} s {known()}".rstrip()
        time.sleep(pause)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing at all; an error if it would wait."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("it waits")
