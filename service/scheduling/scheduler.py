"""The scheduler: one queue for all devices, and a thread for each, which takes work whenever it is free.

The event loop's side puts requests into the queue, which is always in order; a device's thread takes the most
urgent step, runs it, and takes the next.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from service.errors import NotReadyError
from service.observability.metrics import Metrics
from service.scheduling.batch_limits import BatchLimits
from service.scheduling.deadline import Deadline
from service.scheduling.delivery import CompletionQueue, Then, Waiting
from service.scheduling.device import Device
from service.scheduling.engine import Engine, EngineResult, Job, PredictedTile
from service.scheduling.price import Prices
from service.scheduling.queue import Queue, Waiter
from service.scheduling.step_runner import StepRunner
from service.scheduling.text_work import TextRequest
from service.scheduling.work import DeviceCall, EmbedStep, Flight, PredictStep, Request, Step

LOG = logging.getLogger(__name__)
T = TypeVar("T")

_MOST_SHAPES = 16  # that `recent_shapes` remembers
_FIRST_TOKENS = 256  # of an embed step, as long as nobody knows what one takes


class Scheduler:
    """All devices. Their threads start with the first work; `stop` ends them.

    It bounds nothing: `Admission` does, at the door.

    Args:
        names: of the devices, for threads and log.
        max_batch_size: pictures in one `predict`, if the engine finds so many worth it.
        max_batch_delay_s: how long a free device waits for company of a bucket's oldest request.
        ageing_s: a request that has waited this long goes before all that came later.
        metrics: batches and steps are observed here.
        prices: notified of what steps took.
        kept, keep: of the prediction cache, as `Queue` has them.

    Attributes:
        devices: in the order of their names, which is that of every version's engines.
        ageing_s: as given.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        max_batch_size: int,
        max_batch_delay_s: float,
        ageing_s: float,
        metrics: Metrics,
        prices: Prices,
        kept: Callable[[bytes], Any] = lambda key: None,
        keep: Callable[[bytes, Any, tuple[int, int]], None] | None = lambda key, prediction, size: None,
    ):
        self.ageing_s = ageing_s
        self._changed = threading.Condition(threading.Lock())  # guards everything below and the queue
        limits = BatchLimits(max_batch_size)
        self._queue = Queue(
            devices=len(names),
            limits=limits,
            max_batch_delay_s=max_batch_delay_s,
            chunk=lambda engine: prices.chunk(engine.info, _FIRST_TOKENS),
            kept=kept,
            keep=keep,
        )
        self._completions: CompletionQueue | None = None
        self._shapes: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._started = self._stopping = False
        self._stops: list[Waiting[None]] = []
        self.devices = tuple(
            Device(self, name, index, StepRunner(name, index, limits, metrics, prices, self))
            for index, name in enumerate(names)
        )

    @property
    def depth(self) -> int:
        """Requests that wait for a device."""
        return len(self._queue.waiting)

    def oldest_age(self) -> float:
        """Seconds that the oldest waiting request has waited; 0 if none waits."""
        with self._changed:
            oldest = self._queue.oldest()
        return 0.0 if oldest is None else time.monotonic() - oldest

    def recent_shapes(self) -> list[tuple[int, int]]:
        """Up to 16 shapes (rows, columns) at network resolution, the most recently used first."""
        with self._changed:
            return list(reversed(self._shapes))

    # the event loop's side

    def submit(self, job: Job, then: Then | None = None) -> Request:
        """Puts a job into the queue.

        Args:
            job: to be run.
            then: gets the result, or the error, on a device's thread; see `Waiting`. This may be called from
                any thread then, and `withdraw` takes the job out. Without it `answer` has to be awaited, and
                takes it out if that is cancelled.

        Raises:
            DeadlineExceededError: its time is over.
            NotReadyError: the scheduler was stopped.
        """
        request = self.request(job, then)
        self.put(request)
        return request

    def request(self, job: Job, then: Then | None = None) -> Request:
        """What `submit` puts into the queue, before it is there."""
        job.deadline.check()
        return Request(self.completions_here() if then is None else then, job, self.ageing_s)

    async def answer(self, request: Request) -> EngineResult:
        """Waits for what `submit` began. Cancelling the caller gives the place back and disturbs nobody else.

        Returns:
            With `seconds` of queue (waiting for devices), predict (of its batch) and classify.

        Raises:
            DeadlineExceededError: its time was over before it was run.
            OutOfMemoryError: alone it does not fit into the device's memory.
            Exception: whatever the engine raises for this job.
        """
        result: EngineResult = await self.answered(request)
        return result

    async def predicted(self, request: Request) -> PredictedTile:
        """Waits for what `submit` began of a job that only predicts; as `answer` otherwise."""
        tile: PredictedTile = await self.answered(request)
        return tile

    def give_text(self, request: Request, text: Tensor) -> None:
        """Gives a request the text embeddings that its job lacked."""
        with self._changed:
            able = self.devices if request.home is None else [self.devices[request.home]]
            if all(device.ended for device in able):
                request.fail(NotReadyError("the devices are shut down"))
            self._queue.take_text(request, text)
            self._changed.notify_all()  # it may have to go on at one device

    def fail(self, request: Request, error: BaseException) -> None:
        """Ends a request that lacks something which will not come."""
        with self._changed:
            self._queue.discard(request)
        request.fail(error)

    async def embed(
        self,
        engines: tuple[Engine, ...],
        names: Sequence[str],
        templates: Sequence[str],
        tokens: Sequence[int],
        deadline: Deadline,
        finished: Callable[[Mapping[str, Tensor]], None] = lambda rows: None,
    ) -> Tensor:
        """Text embeddings of names, unit rows, float32 [K, C], on the CPU.

        Args:
            engines: of the version whose tower counts.
            names: K of them, each once.
            templates: prompts holding "{}" for the name.
            tokens: of each name, as `Engine.tokens` counts them.
            deadline: decides whose turn it is; only cancelling the caller takes names back.
            finished: notified of the rows that are done, should the caller be cancelled.

        Raises:
            NotReadyError: the scheduler was stopped.
            OutOfMemoryError: a name does not fit into the device's memory.
            Exception: whatever the engine raises for one of the names.
        """
        request = TextRequest(
            self.completions_here(), engines, names, tuple(templates), tokens, deadline, self.ageing_s
        )
        self.put(request)
        try:
            rows: Tensor = await self.answered(request)
        except asyncio.CancelledError:
            finished(request.rows)
            raise
        return rows

    async def stop(self, seconds: float | None = None) -> list[str]:
        """Takes nothing new, finishes what waits, then ends the threads. May be called again.

        Args:
            seconds: that this waits; None for as long as it takes.

        Returns:
            Names of the devices that did not end in that time.
        """
        ended: Waiting[None] = Waiting(self.completions_here())
        with self._changed:
            self._stopping = self._queue.hurry = True
            if not self._started:
                return []
            self._stops.append(ended)
            self._changed.notify_all()
            self._notify_if_ended()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ended.answered()
        for device in self.devices:
            if device.ended:
                device.join()
        return [device.name for device in self.devices if not device.ended]

    def forget(self, digest: str) -> None:
        """Sees that no prediction of weights that are freed is kept from now on; any thread."""
        with self._changed:
            self._queue.forget(digest)

    def completions_here(self) -> CompletionQueue:
        """The answers' way to the running event loop."""
        self._completions = CompletionQueue.here(self._completions)
        return self._completions

    def put(self, waiter: Waiter) -> None:
        """Puts one into the queue; raises NotReadyError once that was stopped."""
        with self._changed:
            if self._stopping:
                raise NotReadyError("the devices are shut down")
            if not self._started:
                self._started = True
                for device in self.devices:
                    device.start()
            self._queue.add(waiter)
            if isinstance(waiter, Request) and waiter.job.prepared is not None:
                self._shapes[waiter.job.prepared.shape] = None
                self._shapes.move_to_end(waiter.job.prepared.shape)
                if len(self._shapes) > _MOST_SHAPES:
                    self._shapes.popitem(last=False)
            if isinstance(waiter, DeviceCall):
                self._changed.notify_all()
            else:
                self._changed.notify()

    async def answered(self, waiter: Waiter) -> Any:
        """Waits for an answer; takes the waiter out if the caller is cancelled."""
        try:
            return await waiter.answered()
        finally:
            self.withdraw(waiter)

    def withdraw(self, waiter: Waiter) -> None:
        """Takes one out that nobody waits for any more, if it has no answer yet; any thread."""
        if waiter.settled:
            return
        with self._changed:
            self._queue.discard(waiter)
        waiter.drop()
        if isinstance(waiter, Request):
            waiter.waited(asyncio.CancelledError)

    # the threads' side

    def landed(self, flight: Flight, prediction: Any, hosted: Any, device: int, seconds: float) -> None:
        """See `Queue.landed`."""
        with self._changed:
            self._queue.landed(flight, prediction, hosted, device, seconds)
            self._wake_others()

    def crashed(self, flight: Flight, error: BaseException) -> None:
        """See `Queue.crashed`."""
        with self._changed:
            self._queue.crashed(flight, error)

    def put_back(self, device: int, piece: PredictStep) -> None:
        """See `Queue.put_back`."""
        with self._changed:
            self._queue.put_back(device, piece)

    def embedded(self, step: EmbedStep, means: Tensor) -> None:
        """Hands out the rows of a block that is done, or puts it back for its next step."""
        rows = step.block.add(means, len(step.templates))
        with self._changed:
            if rows is None:
                self._queue.text.put_back(step.block)
                self._wake_others()  # this device may have to do something else now
                return
            complete = self._queue.text.finish(step.block, rows)
        for request in complete:
            request.answer(torch.stack([request.rows[name] for name in request.names]))

    def not_embedded(self, step: EmbedStep, error: BaseException) -> None:
        """Halves a block that failed; tells those who wait for its only name."""
        block = step.block
        with self._changed:
            if len(block.names) > 1:
                for half in block.halves():
                    self._queue.text.put_back(half)
                self._wake_others()
                return
            failed = self._queue.text.fail(block)
        for request in failed:
            request.fail(error)

    def _wake_others(self) -> None:
        if self._queue.idle:
            self._changed.notify_all()

    def next_step(self, device: "Device", embedded: bool, seconds: float) -> Step | None:
        """The device's next step, however long that takes to come; None at the end."""
        with self._changed:
            self._queue.ended(device.index, embedded, seconds)
            while True:
                now = time.monotonic()
                step = self._queue.next(device.index, now)
                if step is not None:
                    device.progress = now
                    if self._queue.idle and self._queue.text.head(True) is not None:
                        self._changed.notify()  # a list came with one notice, and has work for several
                    return step
                device.progress = None
                if self._stopping and self._queue.is_empty_for(device.index):
                    device.ended = True
                    self._notify_if_ended()
                    self._changed.notify_all()
                    return None
                self._queue.idle += 1
                self._changed.wait(self._queue.patience(now))
                self._queue.idle -= 1

    def _notify_if_ended(self) -> None:
        if all(device.ended for device in self.devices):
            for ended in self._stops:
                ended.answer(None)

    def broken(self, step: Step, error: BaseException) -> None:
        """Leaves nobody waiting whose step ended by a fault of ours."""
        if isinstance(step, PredictStep):
            for flight in step.flights:
                self.crashed(flight, error)
        elif isinstance(step, EmbedStep):
            with self._changed:
                failed = self._queue.text.fail(step.block)
            for request in failed:
                request.fail(error)
        elif isinstance(step, DeviceCall):
            step.fail(error)
        else:
            for one in step.requests:
                one.fail(error)
