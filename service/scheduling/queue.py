"""What waits for the devices, and whose turn it is. Knows of no thread; its owner holds a lock around it.

One queue for all devices: whoever is free takes the most urgent step. Requests that need predict stand in
buckets of one version and one shape; those that have prediction and text, in a line for classify; names for
the text tower, in a line of their own. Arrival keeps each in order of urgency, so that taking cuts off heads.
"""

import itertools
import math
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from torch import Tensor

from service.errors import DeadlineExceededError
from service.scheduling.batch_limits import BatchLimits
from service.scheduling.engine import Engine, PredictedTile, TiledPrediction
from service.scheduling.text_work import TextLine, TextRequest
from service.scheduling.work import (
    Bucket,
    ClassifyStep,
    DeviceCall,
    EmbedStep,
    Flight,
    Key,
    PredictStep,
    Request,
    Step,
    Trigger,
    take_company,
)

Waiter = Request | DeviceCall[Any] | TextRequest
_BY_KEY = attrgetter("key")
# A list of names that had a step waits until other work had the device for so many times as long as that
# step took; where there is no other work it goes on at once.
TEXT_WAITS = 3.0


class Queue:
    """All that waits. As long as its owner's admission keeps it.

    Args:
        devices: how many there are.
        limits: how many pictures may go into a batch.
        max_batch_delay_s: how long a bucket's oldest request waits for company on a free device.
        chunk: text tokens that one step may have on a device.
        kept: gives the prediction that is kept under a picture's key, or None.
        keep: keeps a prediction; None: who flies together goes on where it lies.

    Attributes:
        hurry: nobody waits for company any more.
        idle: devices that wait for work.
        waiting: requests that no device works for.
    """

    def __init__(
        self,
        *,
        devices: int,
        limits: BatchLimits,
        max_batch_delay_s: float,
        chunk: Callable[[Engine], int],
        kept: Callable[[bytes], Any] = lambda key: None,
        keep: Callable[[bytes, Any, tuple[int, int]], None] | None = lambda key, prediction, size: None,
    ):
        self.hurry = False
        self.idle = 0
        self.waiting: set[Request] = set()
        self.text = TextLine()
        self._limits = limits
        self._delay_s = max_batch_delay_s
        self._chunk = chunk
        self._kept = kept
        self._keep = keep
        self._numbers = itertools.count()
        self._buckets: dict[Bucket, list[Flight]] = {}
        self._flights: dict[bytes, Flight] = {}  # by their picture's key, running ones too
        self._ready: list[Request] = []  # for any device
        self._home: list[list[Request]] = [[] for _ in range(devices)]  # whose prediction lies on a device
        self._pieces: list[list[PredictStep]] = [[] for _ in range(devices)]  # of batches that failed
        self._calls: list[list[DeviceCall[Any]]] = [[] for _ in range(devices)]
        self._text_s = [0.0] * devices  # what the last embed step took
        self._other_s = [0.0] * devices  # what other steps took since

    def add(self, waiter: Waiter) -> None:
        """Puts one where it belongs."""
        waiter.number = next(self._numbers)
        if isinstance(waiter, DeviceCall):
            insort(self._calls[waiter.device], waiter, key=_BY_KEY)
        elif isinstance(waiter, TextRequest):
            self.text.add(waiter)
        else:
            self.waiting.add(waiter)
            self._add_request(waiter)

    def discard(self, waiter: Waiter) -> None:
        """Takes one out, as far as it still waits."""
        if isinstance(waiter, DeviceCall):
            _remove(self._calls[waiter.device], waiter)
        elif isinstance(waiter, TextRequest):
            self.text.discard(waiter)
        else:
            self._drop(waiter)

    def take_text(self, request: Request, text: Tensor) -> None:
        """Gives a request the embeddings that it lacked."""
        request.take_text(text)
        if request in self.waiting and request.prediction is not None:
            self._make_ready(request)

    def next(self, device: int, now: float) -> Step | None:
        """The step that a free device takes at `now`; None if there is none yet."""
        while True:
            due = self._other_s[device] >= TEXT_WAITS * self._text_s[device]
            bucket = self._bucket(device, now)
            heads: list[tuple[Key, str]] = [
                (line[0].key, kind)
                for kind, line in (
                    ("call", self._calls[device]),
                    ("classify", self._ready),
                    ("home", self._home[device]),
                    ("piece", self._pieces[device]),
                )
                if line
            ]
            if bucket is not None:
                heads.append((self._buckets[bucket][0].key, "predict"))
            key = self.text.head(due)
            if key is not None:
                heads.append((key, "embed"))
            if not heads:
                return None if self.text.head(True) is None else self._embed(device, due=True)
            step = self._step(device, min(heads)[1], bucket, now, due=due)
            if step is not None:
                return step

    def is_empty_for(self, device: int) -> bool:
        """Whether nothing is left that a device may take, now or after its delay."""
        own = (self._calls, self._home, self._pieces)
        shared = self._ready or self._buckets or self.text.head(True) is not None
        return not (shared or any(line[device] for line in own))

    def ended(self, device: int, embedded: bool, seconds: float) -> None:
        """Notes how long a step kept its device, and whether it was for text."""
        if embedded:
            self._text_s[device], self._other_s[device] = seconds, 0.0
        else:
            self._other_s[device] += seconds

    def landed(self, flight: Flight, prediction: Any, hosted: Any, device: int, seconds: float) -> None:
        """Hands a prediction to those that wait for it, and keeps it.

        Args:
            flight: that brought it.
            prediction: on the device.
            hosted: the same in the host's memory, the same object where that is one; None if it is not kept.
            device: index.
            seconds: that predict took.
        """
        self._forget(flight)
        if self._keep is not None and flight.picture_key is not None:
            self._keep(flight.picture_key, hosted, flight.picture_size)
        home, name = None if hosted is prediction else device, flight.engines[device].info.device
        for request in flight.requests:
            if request.gone or request.settled:
                continue
            if request.job.predict_only:
                request.answer(PredictedTile(hosted, request.queue_s, seconds, name))
                continue
            request.prediction, request.home, request.predict_s = prediction, home, seconds
            request.predicted_on, request.ready_at = name, time.monotonic()
            if hosted is not None:  # one of them goes on at home, the others anywhere
                prediction, home = hosted, None
            self.waiting.add(request)
            if request.ready:
                self._make_ready(request)
        flight.requests = []

    def crashed(self, flight: Flight, error: BaseException) -> None:
        """Tells those that wait for a flight that it cannot land."""
        self._forget(flight)
        for request in flight.requests:
            request.fail(error)

    def put_back(self, device: int, piece: PredictStep) -> None:
        """A part of a batch that failed, for the same device."""
        insort(self._pieces[device], piece, key=_BY_KEY)

    def forget(self, digest: str) -> None:
        """Sees that no prediction of weights that are freed is kept any more."""
        for key, flight in list(self._flights.items()):
            if flight.engines[0].info.digest == digest:
                flight.picture_key = None
                del self._flights[key]

    def patience(self, now: float) -> float | None:
        """Seconds until a bucket has waited long enough for company; None if no bucket waits."""
        oldest = min((f.submitted for line in self._buckets.values() for f in line), default=None)
        return None if oldest is None else max(0.0, oldest + self._delay_s - now)

    def oldest(self) -> float | None:
        """When the oldest waiting request came; None if there is none."""
        return min((request.submitted for request in self.waiting), default=None)

    # in

    def _add_request(self, request: Request) -> None:
        key = request.job.key
        if request.prediction is None and key is not None:
            flight = self._flights.get(key)
            if flight is not None:
                self._join(flight, request)
                return
            request.prediction = self._kept(key)  # another request's came meanwhile
            request.shared = request.prediction is not None
        if request.prediction is not None:
            request.cached = not isinstance(request.prediction, TiledPrediction)
            if request.ready:
                self._make_ready(request)
            return
        assert request.job.prepared is not None
        flight = Flight(request, request.job.prepared, kept=self._keep is not None)
        if key is not None:
            self._flights[key] = flight
        self._line_up(flight)

    def _join(self, flight: Flight, request: Request) -> None:
        if flight.running:
            flight.join(request)
            return
        self._take_out(flight)
        flight.join(request)
        self._line_up(flight)

    def _line_up(self, flight: Flight) -> None:
        place = id(flight.engines[0]), flight.prepared.shape
        insort(self._buckets.setdefault(place, []), flight, key=_BY_KEY)

    def _make_ready(self, request: Request) -> None:
        request.ready_at = max(request.ready_at, time.monotonic())
        line = self._ready if request.home is None else self._home[request.home]
        insort(line, request, key=_BY_KEY)

    # out

    def _drop(self, request: Request) -> None:
        self.waiting.discard(request)
        if request.prediction is not None:
            _remove(self._ready if request.home is None else self._home[request.home], request)
            return
        for flight in self._flights_of(request):
            flight.requests.remove(request)
            if not flight.requests and not flight.running:
                self._take_out(flight)
                self._forget(flight)

    def _flights_of(self, request: Request) -> list[Flight]:
        key = request.job.key
        if key is not None:
            flight = self._flights.get(key)
            if flight is not None and request in flight.requests:
                return [flight]
        assert request.job.prepared is not None
        line = self._buckets.get((id(request.job.engines[0]), request.job.prepared.shape), [])
        return [flight for flight in line if request in flight.requests]

    def _take_out(self, flight: Flight) -> None:
        place = id(flight.engines[0]), flight.prepared.shape
        line = self._buckets.get(place, [])
        _remove(line, flight)
        if not line:
            self._buckets.pop(place, None)

    def _forget(self, flight: Flight) -> None:
        if flight.picture_key is not None and self._flights.get(flight.picture_key) is flight:
            del self._flights[flight.picture_key]

    # turns

    def _step(self, device: int, kind: str, bucket: Bucket | None, now: float, *, due: bool) -> Step | None:
        if kind == "embed":
            return self._embed(device, due=due)
        if kind == "call":
            call = self._calls[device].pop(0)
            return None if call.gone else call
        if kind == "piece":
            return self._piece(device, self._pieces[device].pop(0), now)
        if kind == "predict":
            assert bucket is not None
            return self._predict(device, bucket, now)
        return self._classify(device, self._ready if kind == "classify" else self._home[device], now)

    def _classify(self, device: int, line: list[Request], now: float) -> ClassifyStep | None:
        first = line.pop(0)
        engine = first.job.engines[device]
        # what any device may do is left to those that are free
        lines = [self._home[device]] if self.idle else [self._home[device], self._ready]
        requests = [one for one in [first, *take_company(lines, first, engine)] if self._live(one)]
        for request in requests:
            self.waiting.discard(request)
            request.waited()
            request.queue_s += now - request.ready_at
        return ClassifyStep(engine, requests) if requests else None

    def _embed(self, device: int, *, due: bool) -> EmbedStep:
        block, templates = self.text.take(due, lambda engines: self._chunk(engines[device]))
        tokens = sum(name.tokens for name in block.names) * len(templates) // len(block.templates)
        names = [name.name for name in block.names]
        return EmbedStep(block.engines[device], block, names, templates, tokens)

    def _predict(self, device: int, place: Bucket, now: float) -> PredictStep | None:
        line = self._buckets[place]
        engine, size = line[0].engines[device], self._size(device, line)
        most = min(size, math.ceil(len(line) / (self.idle + 1)))  # other devices are free, too
        waited = self._waited(line, now)
        flights: list[Flight] = []
        while line and len(flights) < most:
            flight = line.pop(0)
            if self._alive(flight):
                flights.append(flight)
        if not waited and len(flights) < most:  # some had only seemed to make it full
            line[:0] = flights
            flights = []
        if not line:
            del self._buckets[place]
        if not flights:
            return None
        patient: Trigger = "idle" if self.hurry or self._delay_s <= 0 else "delay"
        return self._start(PredictStep(engine, flights, "full" if len(flights) == size else patient), now)

    def _piece(self, device: int, piece: PredictStep, now: float) -> PredictStep | None:
        flights = [flight for flight in piece.flights if self._alive(flight)]
        if not flights:
            return None
        trigger, size = piece.trigger, self._fits(piece.engine, piece.bucket[1])
        if len(flights) > size:  # memory ran out in an earlier piece
            trigger = "memory"
            self.put_back(device, PredictStep(piece.engine, flights[size:], trigger))
        return self._start(PredictStep(piece.engine, flights[:size], trigger), now)

    def _start(self, step: PredictStep, now: float) -> PredictStep:
        for flight in step.flights:
            flight.running = True
            for request in flight.requests:
                if request in self.waiting:
                    self.waiting.discard(request)
                    request.waited()
                    request.queue_s += now - request.ready_at
        return step

    def _alive(self, flight: Flight) -> bool:
        flight.requests = [request for request in flight.requests if self._live(request)]
        if not flight.requests:
            self._forget(flight)
        return bool(flight.requests)

    def _live(self, request: Request) -> bool:
        """Whether somebody still waits, in time; if not, the request is settled."""
        if request.gone:
            request.drop()
        elif not request.settled:
            try:
                request.job.deadline.check()
            except DeadlineExceededError as error:
                request.fail(error)
        if request.settled:
            self.waiting.discard(request)
        return not request.settled

    def _bucket(self, device: int, now: float) -> Bucket | None:
        """The bucket of the most urgent batch that is full, or whose oldest has waited long enough."""
        best, best_key = None, (math.inf, 0)
        for place, line in self._buckets.items():
            if line[0].key < best_key and (self._waited(line, now) or len(line) >= self._size(device, line)):
                best, best_key = place, line[0].key
        return best

    def _waited(self, line: list[Flight], now: float) -> bool:
        if self.hurry or self._delay_s <= 0:
            return True
        return min(flight.submitted for flight in line) + self._delay_s <= now

    def _size(self, device: int, line: list[Flight]) -> int:
        engine = line[0].engines[device]
        return max(1, min(self._fits(engine, line[0].prepared.shape), engine.batch))

    def _fits(self, engine: Engine, shape: tuple[int, int]) -> int:
        """Pictures that the device's memory holds, as far as that is known."""
        return min(self._limits.size((id(engine), shape)), engine.room(shape))


def _remove(line: list[Any], item: Any) -> None:
    """Takes an item out of a line that is in order, if it is there."""
    at = bisect_left(line, item.key, key=_BY_KEY)
    if at < len(line) and line[at] is item:
        del line[at]
