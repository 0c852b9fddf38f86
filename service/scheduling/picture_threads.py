"""The threads that decode pictures and encode masks.

A pool of `concurrent.futures` would do, but for its price: two futures and a wake-up of the event loop for
every piece of work. Here answers that are ready close together share one wake-up.
"""

import contextvars
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from service.errors import NotReadyError
from service.scheduling.delivery import CompletionQueue, Failed, Waiting, attempt

P = ParamSpec("P")
T = TypeVar("T")


MOST_BY_DEFAULT = 8  # each may hold a picture of `max_pixels`


class PictureThreads:
    """Some threads that take work in the order it came. They start with the first of it; `stop` ends them.

    It bounds nothing: `Admission` does, at the door.

    Args:
        count: of the threads; None for one a core that the process may use, at most 8.
    """

    def __init__(self, count: int | None):
        self._count = min(MOST_BY_DEFAULT, cores()) if count is None else count
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._completions: CompletionQueue | None = None
        self._threads: list[threading.Thread] = []
        self._stopped = False

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on one of the threads, from the event loop.

        Cancelling the caller takes it out if it has not begun.

        Raises:
            NotReadyError: the threads were stopped.
            Exception: whatever the work raises; what is no Exception comes as a RuntimeError.
        """
        if self._stopped:
            raise NotReadyError("the service is shutting down")
        if not self._threads:
            # Daemons: work that hangs must not keep the process from ending.
            self._threads = [
                threading.Thread(target=self._serve, name=f"ebseg-picture_{index}", daemon=True)
                for index in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        self._completions = CompletionQueue.here(self._completions)
        waiting = _Work(self._completions, partial(work, *args, **kwargs))
        self._queue.put(waiting)
        result: T = await waiting.answered()
        return result

    def stop(self) -> None:
        """Takes nothing new and fails what has not begun; each thread ends after what it is at."""
        self._stopped = True
        with suppress(Empty):
            while (waiting := self._queue.get_nowait()) is not None:
                waiting.fail(NotReadyError("the service is shutting down"))
        for _ in self._threads:
            self._queue.put(None)

    def _serve(self) -> None:
        while (waiting := self._queue.get()) is not None:
            waiting.do()
            del waiting  # or it would keep a picture until the next one comes


class _Work(Waiting[Any]):
    """One piece of work, in its caller's context: log lines of the thread carry the request's id, too."""

    def __init__(self, completions: CompletionQueue, work: Callable[[], object]):
        super().__init__(completions)
        self._work = work
        self._context = contextvars.copy_context()

    def do(self) -> None:
        if self.gone:
            return
        result = attempt(self._context.run, self._work)
        if isinstance(result, Failed):
            self.fail(result.take())
        else:
            self.answer(result)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
