"""The threads that decode pictures and encode answers, in two lanes.

Answers go before pictures, and one thread takes nothing else: who has had his turn on a device does not wait
behind others' pictures. Within a lane the earliest deadline goes first.

A pool of `concurrent.futures` would do for one lane, but for its price: two futures and a wake-up of the
event loop for every piece of work. Here answers that are ready close together share one wake-up.
"""

import contextvars
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import Any, Literal, ParamSpec, TypeVar

from service.errors import NotReadyError
from service.scheduling.deadline import Deadline
from service.scheduling.delivery import CompletionQueue, Failed, Then, Waiting, attempt

P = ParamSpec("P")
T = TypeVar("T")
Lane = Literal["decode", "encode"]

LANES: tuple[Lane, ...] = ("encode", "decode")  # the first one goes first
MOST_BY_DEFAULT = 8  # each may hold a picture of `max_pixels`
_WINDOW = 64  # pieces of work whose mean time is what another one is expected to take


class PictureThreads:
    """Threads for both lanes, and one for answers alone. They start with the first work; `stop` ends them.

    It bounds nothing: `Admission` does, at the door.

    Args:
        threads: for both lanes; None for one a core that the process may use, at most 8.
    """

    def __init__(self, threads: int | None):
        self._count = min(MOST_BY_DEFAULT, cores()) if threads is None else threads
        self._lock = threading.Lock()  # guards all below
        self._lanes: dict[Lane, list[tuple[float, int, _Work]]] = {lane: [] for lane in LANES}
        self._numbers = count()
        self._seconds: dict[Lane, deque[float]] = {lane: deque(maxlen=_WINDOW) for lane in LANES}
        self._busy = 0  # threads for both lanes that work
        self._stopped = False
        # Each says that there may be something to do: who finds more than his hint said does that too.
        self._hints: SimpleQueue[None] = SimpleQueue()
        self._answer_hints: SimpleQueue[None] = SimpleQueue()
        self._completions: CompletionQueue | None = None
        self._threads: list[threading.Thread] = []

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function before all pictures that wait: for what comes before a deadline is known.

        Raises:
            Exception: as of `run_in`.
        """
        result: T = await self._run("decode", time.monotonic(), partial(work, *args, **kwargs))
        return result

    async def run_in(
        self, lane: Lane, deadline: Deadline, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs a function on one of the threads, from the event loop.

        Cancelling the caller takes it out if it has not begun.

        Args:
            lane: "encode" for answers, "decode" for all before them.
            deadline: the earliest goes first.
            work: the function, and its arguments.

        Raises:
            NotReadyError: the threads were stopped.
            Exception: whatever the work raises; what is no Exception comes as a RuntimeError.
        """
        result: T = await self._run(lane, deadline.at, partial(work, *args, **kwargs))
        return result

    def post(self, lane: Lane, deadline: Deadline, then: Then, work: Callable[[], object]) -> Waiting[Any]:
        """Runs a function on one of the threads, from any thread, without an event loop.

        Dropping what this returns takes it out if it has not begun.

        Args:
            lane, deadline: as of `run_in`.
            then: gets what it returns or raises, on that thread; see `Waiting`.
            work: the function.
        """
        posted = _Work(then, lane, work)
        try:
            self._put(deadline.at, posted)
        except NotReadyError as error:
            posted.fail(error)
        return posted

    def depth(self, lane: Lane) -> int:
        """Pieces of work that wait."""
        with self._lock:
            return sum(not work.gone for _, _, work in self._lanes[lane])

    def oldest_age(self, lane: Lane) -> float:
        """Seconds that the oldest of them has waited; 0 if none waits."""
        with self._lock:
            waiting = [work.submitted for _, _, work in self._lanes[lane] if not work.gone]
        return time.monotonic() - min(waiting) if waiting else 0.0

    def ahead(self) -> float:
        """Seconds until all that waits is likely to be done."""
        with self._lock:
            total = sum(
                len(self._lanes[lane]) * sum(seconds) / len(seconds)
                for lane, seconds in self._seconds.items()
                if seconds
            )
        return total / self._count

    def stop(self) -> None:
        """Takes nothing new and fails what has not begun; each thread ends after what it is at."""
        with self._lock:
            self._stopped = True
            waiting = [work for line in self._lanes.values() for _, _, work in line]
            for line in self._lanes.values():
                line.clear()
        for work in waiting:
            work.fail(NotReadyError("the service is shutting down"))
        for _ in self._threads:
            self._hints.put(None)
        self._answer_hints.put(None)

    async def _run(self, lane: Lane, urgency: float, function: Callable[[], Any]) -> Any:
        self._completions = CompletionQueue.here(self._completions)
        work = _Work(self._completions, lane, function)
        self._put(urgency, work)
        return await work.answered()

    def _put(self, urgency: float, work: "_Work") -> None:
        with self._lock:
            if self._stopped:
                raise NotReadyError("the service is shutting down")
            if not self._threads:
                self._start()
            heappush(self._lanes[work.lane], (urgency, next(self._numbers), work))
            alone = work.lane == "encode" and self._busy >= self._count
        (self._answer_hints if alone else self._hints).put(None)

    def _start(self) -> None:
        # Daemons: work that hangs must not keep the process from ending.
        both = [(self._hints, LANES)] * self._count
        for index, (hints, lanes) in enumerate([*both, (self._answer_hints, LANES[:1])]):
            thread = threading.Thread(
                target=self._serve, args=(hints, lanes), name=f"ebseg-picture_{index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, hints: "SimpleQueue[None]", lanes: tuple[Lane, ...]) -> None:
        both = len(lanes) > 1
        while True:
            hints.get()
            while (work := self._next(lanes, both=both)) is not None:
                self._do(work, both=both)
                del work  # or it would keep a picture until the next one comes
            if self._stopped:
                return

    def _next(self, lanes: tuple[Lane, ...], *, both: bool) -> "_Work | None":
        with self._lock:
            for lane in lanes:
                if self._lanes[lane]:
                    self._busy += both
                    return heappop(self._lanes[lane])[2]
        return None

    def _do(self, work: "_Work", *, both: bool) -> None:
        began = time.monotonic()
        work.do()
        with self._lock:
            self._busy -= both
            self._seconds[work.lane].append(time.monotonic() - began)


class _Work(Waiting[Any]):
    """One piece of work, in its caller's context: log lines of the thread carry the request's id, too."""

    def __init__(self, to: CompletionQueue | Then, lane: Lane, work: Callable[[], object]):
        super().__init__(to)
        self.lane = lane
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
