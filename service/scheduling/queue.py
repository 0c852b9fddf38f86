"""What waits for a device, and whose turn it is. Knows of no thread; its owner holds a lock around it.

Requests wait in buckets of one engine and one padded shape, each in order of urgency. Arrival keeps the
order, so that taking a batch only cuts off a bucket's head. Time goes round by round: one call, a batch's
worth of requests that need no predict, one batch; what there is none of is left out.
"""

import itertools
import time
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from service.errors import DeadlineExceededError
from service.observability.stages import Stage, stage_listener
from service.scheduling.delivery import CompletionQueue, Waiting
from service.scheduling.engine import EngineResult, Job, PreparedPicture

Bucket = tuple[int, tuple[int, int]]  # id of the engine, rows and columns
Trigger = Literal["full", "delay", "idle", "bisect", "memory", "cached"]
T = TypeVar("T")

_MOST_LIMITS = 64  # buckets whose smaller batch size is remembered
_REGROWTH = 32  # good batches of the smaller size, after which one of twice that size is tried


class Request(Waiting[EngineResult]):
    """A job that waits for its turn.

    Args:
        completions: of the running event loop.
        job: to be run.
        ageing_s: after this long, the request goes before all that came later.

    Raises:
        ValueError: there is neither a picture nor a prediction in the job.
    """

    def __init__(self, completions: CompletionQueue, job: Job, ageing_s: float):
        super().__init__(completions)
        self.job = job
        self.cached = job.prediction is not None
        self.cost = 0 if self.cached else self.prepared.cost
        # Never changes, so nothing is sorted twice: ageing caps how far a far deadline puts one back.
        self.urgency = min(job.deadline.at, self.submitted + ageing_s)
        self.number = 0  # order of arrival, given by the queue
        self._listener = stage_listener.get()
        self._came_ns = [] if self._listener is None else [time.time_ns()]  # until it has waited

    def waited(self, error: type[BaseException] | None = None) -> None:
        """Tells of the queue as a stage, once: the device turns to the request, or an error ends that."""
        if self._listener is None:
            return
        with suppress(IndexError):  # pop is atomic; the loop may give up while the device begins
            self._listener(Stage("queue", self._came_ns.pop(), time.time_ns(), error))

    def ran(self, name: str, began_ns: int, error: type[BaseException] | None = None) -> None:
        """Tells of a stage on the device that ends now.

        Args:
            name: of the stage.
            began_ns: Unix time, nanoseconds.
            error: what kind of error ended it.
        """
        if self._listener is not None:
            self._listener(Stage(name, began_ns, time.time_ns(), error))

    @property
    def prepared(self) -> PreparedPicture:
        """The picture.

        Raises:
            ValueError: there is none.
        """
        if self.job.prepared is None:
            raise ValueError("a job needs a prepared picture or a prediction, and has neither")
        return self.job.prepared

    @property
    def bucket(self) -> Bucket:
        """What its batch-mates must agree with it in."""
        return id(self.job.engine), self.prepared.shape


class DeviceCall(Waiting[T], Generic[T]):
    """Other work for the device's thread."""

    def __init__(self, completions: CompletionQueue, work: Callable[[], T]):
        super().__init__(completions)
        self.work = work


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests whose turn it is, the most urgent first, and why now."""

    requests: list[Request]
    trigger: Trigger


class BatchLimits:
    """Batch sizes; smaller for a while where a batch did not fit into the device's memory.

    Args:
        largest: for buckets that never ran out of memory.
    """

    def __init__(self, largest: int):
        self._largest = largest
        self._shrunk: OrderedDict[Bucket, tuple[int, int]] = OrderedDict()  # size, good batches of it

    def size(self, bucket: Bucket) -> int:
        """The most requests that a batch of this bucket may hold."""
        return self._shrunk[bucket][0] if bucket in self._shrunk else self._largest

    def shrink(self, bucket: Bucket, size: int) -> None:
        """Notes that more than `size` did not fit."""
        self._shrunk[bucket] = (size, 0)
        self._shrunk.move_to_end(bucket)
        if len(self._shrunk) > _MOST_LIMITS:
            self._shrunk.popitem(last=False)

    def good(self, bucket: Bucket, size: int) -> None:
        """Notes that a batch of `size` fitted."""
        if bucket not in self._shrunk:
            return
        limit, seen = self._shrunk[bucket]
        if size < limit:
            return  # says nothing about larger ones
        if seen + 1 < _REGROWTH:
            self._shrunk[bucket] = (limit, seen + 1)
        elif 2 * limit < self._largest:
            self._shrunk[bucket] = (2 * limit, 0)
        else:
            del self._shrunk[bucket]


class Queue:
    """Calls and requests that wait. As long as its owner's admission keeps it.

    Args:
        limits: how many may go into a batch.
        max_batch_size: how many requests without predict may go before a batch.
        max_batch_delay_s: how long a bucket's oldest request waits for company on a free device.
        expired: told of requests whose time was over before their turn came.

    Attributes:
        hurry: nobody waits for company any more.
        depth: requests that wait.
        cost: network pixels of them.
    """

    def __init__(
        self,
        *,
        limits: BatchLimits,
        max_batch_size: int,
        max_batch_delay_s: float,
        expired: Callable[[Request, DeadlineExceededError], None],
    ):
        self.hurry = False
        self.depth = 0
        self.cost = 0
        self._limits = limits
        self._most_cached = max_batch_size
        self._delay_s = max_batch_delay_s
        self._expired = expired
        self._numbers = itertools.count()
        self._calls: deque[DeviceCall[Any]] = deque()
        self._cached: list[Request] = []
        self._buckets: dict[Bucket, list[Request]] = {}
        self._round_called = False
        self._round_cached = 0
        self._round_began = 0.0
        self._batch_began: float | None = None  # while it runs
        self._batch_s = 0.0  # that the last one took

    def add(self, waiting: Request | DeviceCall[Any]) -> None:
        """Puts one where it belongs."""
        if isinstance(waiting, DeviceCall):
            self._calls.append(waiting)
            return
        waiting.number = next(self._numbers)
        line = self._cached if waiting.cached else self._buckets.setdefault(waiting.bucket, [])
        insort(line, waiting, key=_order)
        self.depth += 1
        self.cost += waiting.cost

    def discard(self, waiting: Request | DeviceCall[Any]) -> None:
        """Takes one out, if it still waits."""
        if isinstance(waiting, DeviceCall):
            if waiting in self._calls:
                self._calls.remove(waiting)
            return
        line = self._cached if waiting.cached else self._buckets.get(waiting.bucket, [])
        place = bisect_left(line, _order(waiting), key=_order)
        if place < len(line) and line[place] is waiting:
            self._cut(line, place, place + 1)
            if not line and not waiting.cached:
                del self._buckets[waiting.bucket]

    def next(self, now: float) -> DeviceCall[Any] | Batch | None:
        """Whose turn it is at `now`; None if nobody's yet. Takes them out.

        Calls go first, one at least and together for as long as the batch before took: a device that is busy
        with both gives half of its time to each.
        """
        if self._batch_began is not None:
            self._batch_s, self._batch_began, self._round_began = now - self._batch_began, None, now
        for _ in range(2):
            if self._calls and (not self._round_called or now - self._round_began < self._batch_s):
                self._round_called = True
                return self._calls.popleft()
            while self._cached and self._round_cached < self._most_cached:
                [request] = self._cut(self._cached, 0, 1)
                if self._live(request):
                    self._round_cached += 1
                    return Batch([request], "cached")
            # The round is over; without a batch that is ready, the next one begins at once.
            self._round_called, self._round_cached, self._round_began = False, 0, now
            batch = self._batch(now)
            if batch is not None:
                self._batch_began = now
                return batch
        return None

    def patience(self, now: float) -> float | None:
        """Seconds until a bucket has waited long enough for company; None if no bucket waits."""
        oldest = self.oldest()
        return None if oldest is None else max(0.0, oldest + self._delay_s - now)

    def oldest(self) -> float | None:
        """When the oldest waiting request came; None if there is none."""
        lines = (self._cached, *self._buckets.values())
        return min((request.submitted for line in lines for request in line), default=None)

    def _batch(self, now: float) -> Batch | None:
        """The batch of the most urgent bucket that is full, or whose oldest has waited long enough."""
        for bucket, line in sorted(self._buckets.items(), key=lambda entry: _order(entry[1][0])):
            size = self._limits.size(bucket)
            waited = self.hurry or self._delay_s <= 0
            waited = waited or min(request.submitted for request in line) + self._delay_s <= now
            if len(line) < size and not waited:
                continue
            live: list[Request] = []
            seen = 0
            while seen < len(line) and len(live) < size:
                if self._live(line[seen]):
                    live.append(line[seen])
                    seen += 1
                else:
                    self._cut(line, seen, seen + 1)
            if waited or len(live) == size:
                self._cut(line, 0, seen)
            if not line:
                del self._buckets[bucket]
            if len(live) == size:
                return Batch(live, "full")
            if live and waited:
                return Batch(live, "idle" if self.hurry or self._delay_s <= 0 else "delay")
        return None

    def _live(self, request: Request) -> bool:
        try:
            request.job.deadline.check()
        except DeadlineExceededError as error:
            self._expired(request, error)
            return False
        return not request.gone

    def _cut(self, line: list[Request], start: int, stop: int) -> list[Request]:
        cut = line[start:stop]
        del line[start:stop]
        self.depth -= len(cut)
        self.cost -= sum(request.cost for request in cut)
        return cut


def _order(request: Request) -> tuple[float, int]:
    return request.urgency, request.number
