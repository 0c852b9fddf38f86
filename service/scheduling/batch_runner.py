"""Running a batch on a device's thread: one predict, then one classify for each request.

What the engine raises concerns those requests alone that caused it: a batch that fails is halved until
the one at fault is found, one that does not fit into memory until it fits.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from service.errors import DeadlineExceededError, OutOfMemoryError
from service.observability.metrics import Metrics
from service.scheduling.delivery import Failed, attempt
from service.scheduling.engine import EngineResult
from service.scheduling.out_of_memory import is_out_of_memory, release_memory
from service.scheduling.queue import Batch, BatchLimits, DeviceCall, Request, Trigger

LOG = logging.getLogger(__name__)
Piece = tuple[list[Request], Trigger]


class BatchRunner:
    """Runs what the queue hands out. Lives on one device's thread.

    Args:
        name: of the device, for the log.
        limits: lowered where memory runs out.
        metrics: `batch_size` and `batches` are observed here.
        served: told of the cost of a batch and the seconds it kept the device busy.

    Attributes:
        progress: `time.monotonic()` when the running work last got on; None if none runs.
    """

    def __init__(
        self,
        name: str,
        limits: BatchLimits,
        metrics: Metrics,
        served: Callable[[int, float], None] | None = None,
    ):
        self.progress: float | None = None
        self._name = name
        self._limits = limits
        self._metrics = metrics
        self._served = served

    def run(self, step: DeviceCall[Any] | Batch) -> None:
        """Answers all that is in `step`; nothing that the engine or a call raises comes out."""
        if isinstance(step, DeviceCall):
            self._call(step)
        else:
            self._batch(step)

    def _call(self, call: DeviceCall[Any]) -> None:
        if call.gone:
            return
        result = attempt(call.work)
        if isinstance(result, Failed):
            call.fail(self._for_request(result.take()))
        else:
            call.answer(result)

    def _batch(self, batch: Batch) -> None:
        if batch.trigger == "cached":
            [request] = batch.requests
            if self._wanted(request):
                request.waited()
                self._metrics.count(self._metrics.batches, batch.trigger)
                self._classify(request, request.job.prediction, 0.0)
            return
        pieces: deque[Piece] = deque([(batch.requests, batch.trigger)])
        while pieces:
            requests, trigger = pieces.popleft()
            size = self._limits.size(requests[0].bucket)
            if len(requests) > size:  # memory ran out in an earlier piece
                parts = [requests[i : i + size] for i in range(0, len(requests), size)]
                pieces.extendleft((part, "memory") for part in reversed(parts))
            else:
                pieces.extendleft(reversed(self._piece(requests, trigger)))

    def _piece(self, requests: list[Request], trigger: Trigger) -> list[Piece]:
        """Runs some requests in one go, or answers what to run in their stead."""
        requests = [request for request in requests if self._wanted(request)]
        if not requests:
            return []
        bucket, count = requests[0].bucket, len(requests)
        self._metrics.count(self._metrics.batches, trigger)
        self._metrics.batch_size.observe(count)
        for request in requests:
            request.waited()
        began_ns = time.time_ns()
        began = self.progress = time.monotonic()
        predictions = attempt(_predict, requests)
        seconds = time.monotonic() - began
        failure = predictions.kind if isinstance(predictions, Failed) else None
        for request in requests:
            request.ran("predict", began_ns, failure)
        if not isinstance(predictions, Failed):
            self._limits.good(bucket, count)
            for request, prediction in zip(requests, predictions, strict=True):
                self._classify(request, prediction, seconds)
            if self._served is not None:
                self._served(sum(request.cost for request in requests), time.monotonic() - began)
            return []
        return self._apart(requests, self._for_request(predictions.take()))

    def _apart(self, requests: list[Request], error: BaseException) -> list[Piece]:
        """What to run after a predict that failed."""
        bucket, count = requests[0].bucket, len(requests)
        if count == 1:
            requests[0].fail(error)
            return []
        half = (count + 1) // 2
        LOG.warning(
            "device %s: predict of %d pictures of %d x %d failed (%s), going on with %d",
            *(self._name, count, *bucket[1], type(error).__name__, half),
        )
        trigger: Trigger = "bisect"
        if isinstance(error, OutOfMemoryError):
            trigger = "memory"
            self._limits.shrink(bucket, half)
        return [(requests[:half], trigger), (requests[half:], trigger)]

    def _classify(self, request: Request, prediction: Any, predict_s: float) -> None:
        if not self._wanted(request):
            return
        self.progress = time.monotonic()
        began_ns = time.time_ns()
        result = attempt(_segmentation, request, prediction, predict_s)
        request.ran("classify", began_ns, result.kind if isinstance(result, Failed) else None)
        if isinstance(result, Failed):
            request.fail(self._for_request(result.take()))
        else:
            request.answer(result)

    def _wanted(self, request: Request) -> bool:
        """Whether somebody still waits, in time; if not, the request is settled."""
        if request.gone:
            request.drop()
            return False
        try:
            request.job.deadline.check()
        except DeadlineExceededError as error:
            request.fail(error)
            return False
        return True

    def _for_request(self, error: BaseException) -> BaseException:
        """The error as its request is told it. Frees memory if that ran out."""
        if not is_out_of_memory(error):
            return error
        release_memory(error)
        shortage = OutOfMemoryError("the device has no memory left for this; send a smaller picture or retry")
        shortage.__cause__ = error
        return shortage


def _predict(requests: list[Request]) -> list[Any]:
    predictions = requests[0].job.engine.predict([request.prepared for request in requests])
    if len(predictions) != len(requests):
        raise RuntimeError(f"the engine made {len(predictions)} predictions of {len(requests)} pictures")
    return list(predictions)


def _segmentation(request: Request, prediction: Any, predict_s: float) -> EngineResult:
    began = time.monotonic()
    result = request.job.engine.classify(prediction, request.job)
    seconds = {
        **result.seconds,
        "queue": began - request.submitted - predict_s,
        "predict": predict_s,
        "classify": time.monotonic() - began,
    }
    return replace(result, prediction=prediction, seconds=seconds)
