"""The dynamic batcher: one device, its one thread, and the requests that wait for it.

The event loop's side puts requests into a queue that is always in order; the thread takes the most urgent
batch the moment the device is free.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service.errors import NotReadyError
from service.observability.metrics import Metrics
from service.scheduling.batch_runner import BatchRunner
from service.scheduling.delivery import CompletionQueue, Failed, Waiting, attempt
from service.scheduling.engine import EngineResult, Job
from service.scheduling.queue import Batch, BatchLimits, DeviceCall, Queue, Request

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_SHAPES = 16  # that `recent_shapes` remembers


class Batcher:
    """One device. The thread starts with the first request; `stop` ends it.

    It bounds nothing: `Admission` does, at the door.

    Args:
        name: of the device, for the thread and the log.
        max_batch_size: requests in one `predict`.
        max_batch_delay_s: how long a free device waits for company of a bucket's oldest request.
        ageing_s: a request that has waited this long goes before all that came later.
        metrics: `batch_size` and `batches` are observed here.
        served: told of the cost of a batch and the seconds it kept the device busy, for `Admission`.
    """

    def __init__(
        self,
        *,
        name: str,
        max_batch_size: int,
        max_batch_delay_s: float,
        ageing_s: float,
        metrics: Metrics,
        served: Callable[[int, float], None] | None = None,
    ):
        self.name = name
        self._ageing_s = ageing_s
        limits = BatchLimits(max_batch_size)  # used on the thread only
        self._runner = BatchRunner(name, limits, metrics, served)
        self._queue = Queue(
            limits=limits,
            max_batch_size=max_batch_size,
            max_batch_delay_s=max_batch_delay_s,
            expired=lambda request, error: request.fail(error),
        )
        self._changed = threading.Condition()  # guards everything below and the queue
        self._shapes: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._completions: CompletionQueue | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._ended = False
        self._stops: list[Waiting[None]] = []
        self._running: Sequence[Request] = ()

    async def submit(self, job: Job) -> EngineResult:
        """Runs a job. Cancelling the caller gives the place back and disturbs nobody else.

        Returns:
            With `prediction`, and `seconds` of queue (all waiting), predict (of its batch) and classify.

        Raises:
            DeadlineExceededError: its time was over before it was run.
            NotReadyError: the device was stopped.
            OutOfMemoryError: alone it does not fit into the device's memory.
            Exception: whatever the engine raises for this job.
        """
        job.deadline.check()
        result: EngineResult = await self._answer(Request(self._completions_here(), job, self._ageing_s))
        return result

    async def call(self, work: Callable[[], T]) -> T:
        """Runs other work on the device's thread: before the next batch, in order of arrival.

        Where batches wait, too, they take turns, with half of the time for each. Cancelling the caller takes
        the work out if it has not begun.

        Raises:
            NotReadyError: the device was stopped.
            OutOfMemoryError: the work ran out of memory.
            Exception: whatever else the work raises; what is no Exception comes as a RuntimeError.
        """
        result: T = await self._answer(DeviceCall(self._completions_here(), work))
        return result

    async def stop(self) -> None:
        """Takes nothing new, finishes what waits, then ends the thread. May be called again."""
        ended: Waiting[None] = Waiting(self._completions_here())
        with self._changed:
            self._stopping = self._queue.hurry = True
            if self._thread is None:
                return
            if self._ended:
                ended.answer(None)
            else:
                self._stops.append(ended)
                self._changed.notify()
        await ended.answered()
        self._thread.join()  # has nothing left to do

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._queue.depth

    @property
    def pending_cost(self) -> int:
        """Network pixels of the requests that wait or run."""
        with self._changed:
            return self._queue.cost + sum(r.cost for r in self._running if not r.settled)

    def oldest_age(self) -> float:
        """Seconds that the oldest waiting request has waited; 0 if none waits."""
        with self._changed:
            oldest = self._queue.oldest()
        return 0.0 if oldest is None else time.monotonic() - oldest

    def stalled_for(self) -> float:
        """Seconds since the running batch or call last got on; 0 if none runs."""
        progress = self._runner.progress
        return 0.0 if progress is None else time.monotonic() - progress

    def recent_shapes(self) -> list[tuple[int, int]]:
        """Up to 16 padded shapes (rows, columns), the most recently used first."""
        with self._changed:
            return list(reversed(self._shapes))

    # the event loop's side

    def _completions_here(self) -> CompletionQueue:
        self._completions = CompletionQueue.here(self._completions)
        return self._completions

    async def _answer(self, waiting: Request | DeviceCall[Any]) -> Any:
        with self._changed:
            if self._stopping:
                raise NotReadyError(f"device {self.name} is shut down")
            if self._thread is None:
                # A daemon: work that hangs must not keep the process from ending.
                thread = threading.Thread(target=self._run, name=f"ebseg-{self.name}", daemon=True)
                thread.start()
                self._thread = thread
            self._queue.add(waiting)
            if isinstance(waiting, Request) and not waiting.cached:
                shape = waiting.prepared.shape
                self._shapes[shape] = None
                self._shapes.move_to_end(shape)
                if len(self._shapes) > _MOST_SHAPES:
                    self._shapes.popitem(last=False)
            self._changed.notify()
        try:
            return await waiting.answered()
        finally:
            if not waiting.settled:
                with self._changed:
                    self._queue.discard(waiting)
                if isinstance(waiting, Request):
                    waiting.waited(asyncio.CancelledError)

    # the thread's side

    def _run(self) -> None:
        while self._turn():
            pass

    def _turn(self) -> bool:
        """One call or batch; False at the end. Its variables, and pictures with them, end with it."""
        step = self._next()
        if step is None:
            for ended in self._stops:
                ended.answer(None)
            return False
        done = attempt(self._runner.run, step)
        if isinstance(done, Failed):
            self._broken(step, done.take())
        self._running = ()
        self._runner.progress = None
        return True

    def _broken(self, step: DeviceCall[Any] | Batch, error: BaseException) -> None:
        LOG.error("device %s: a batch ended unexpectedly", self.name, exc_info=error)
        for waiting in [step] if isinstance(step, DeviceCall) else step.requests:
            waiting.fail(error)

    def _next(self) -> DeviceCall[Any] | Batch | None:
        with self._changed:
            while True:
                now = time.monotonic()
                step = self._queue.next(now)
                if step is not None:
                    self._running = step.requests if isinstance(step, Batch) else ()
                    self._runner.progress = now
                    return step
                if self._stopping:
                    self._ended = True
                    return None
                self._changed.wait(self._queue.patience(now))
