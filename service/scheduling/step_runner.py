"""Running the steps that the queue hands out, on a device's thread.

What the engine raises concerns those requests alone that caused it: a batch that fails is halved until the
one at fault is found, one that does not fit into memory until it fits.
"""

import logging
import time
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from service.errors import OutOfMemoryError
from service.observability.metrics import Metrics
from service.scheduling.batch_limits import BatchLimits
from service.scheduling.delivery import Failed, attempt
from service.scheduling.engine import EngineResult, Job
from service.scheduling.out_of_memory import is_out_of_memory, release_memory
from service.scheduling.price import CLASSIFY, EMBED, PREDICT, Prices
from service.scheduling.work import (
    ClassifyStep,
    DeviceCall,
    EmbedStep,
    Flight,
    PredictStep,
    Step,
    Trigger,
)

LOG = logging.getLogger(__name__)


class Results(Protocol):
    """Where steps' results go; the queue, with its lock around it."""

    def landed(self, flight: Flight, prediction: Any, hosted: Any, device: int, seconds: float) -> None:
        """Hands a prediction to those that wait for it."""

    def crashed(self, flight: Flight, error: BaseException) -> None:
        """Tells those that wait for a flight that it cannot land."""

    def put_back(self, device: int, piece: PredictStep) -> None:
        """Puts a part of a batch that failed into its line."""

    def embedded(self, step: EmbedStep, means: Tensor) -> None:
        """Hands out what a step embedded."""

    def not_embedded(self, step: EmbedStep, error: BaseException) -> None:
        """Notes that a step's names could not be embedded together."""


class StepRunner:
    """Runs steps on one device.

    Args:
        name: of the device, for the log.
        device: its index.
        limits: lowered where memory runs out.
        metrics: batches and steps are observed here.
        prices: notified of what steps took.
        results: where their results go.
    """

    def __init__(
        self, name: str, device: int, limits: BatchLimits, metrics: Metrics, prices: Prices, results: Results
    ):
        self._name = name
        self._device = device
        self._limits = limits
        self._metrics = metrics
        self._prices = prices
        self._results = results

    def run(self, step: Step) -> None:
        """Answers all that is in `step`, or puts it where it goes on. Nothing of the engine's raises."""
        if isinstance(step, PredictStep):
            self._predict(step)
        elif isinstance(step, ClassifyStep):
            self._classify(step)
        elif isinstance(step, EmbedStep):
            self._embed(step)
        else:
            self._call(step)

    def _call(self, call: DeviceCall[Any]) -> None:
        result = attempt(call.work)
        if isinstance(result, Failed):
            call.fail(_for_request(result.take()))
        else:
            call.answer(result)

    def _predict(self, step: PredictStep) -> None:
        flights, count = step.flights, len(step.flights)
        info = step.engine.info
        self._metrics.batch(info, info.device, step.trigger, count)
        requests = [request for flight in flights for request in flight.requests]
        began, began_ns = time.monotonic(), time.time_ns()
        landed = attempt(_predictions, step)
        seconds = time.monotonic() - began
        for request in requests:
            request.ran("predict", began_ns, landed.kind if isinstance(landed, Failed) else None)
        if isinstance(landed, Failed):
            self._apart(step, _for_request(landed.take()))
            return
        self._limits.good(step.bucket, count)
        self._took(step, PREDICT, sum(flight.prepared.cost for flight in flights), seconds)
        for flight, (prediction, hosted) in zip(flights, landed, strict=True):
            self._results.landed(flight, prediction, hosted, self._device, seconds)

    def _apart(self, step: PredictStep, error: BaseException) -> None:
        """Says what is to be run after a predict that failed."""
        flights, count = step.flights, len(step.flights)
        if count == 1:
            self._results.crashed(flights[0], error)
            return
        half = (count + 1) // 2
        LOG.warning(
            "device %s: predict of %d images of %d x %d failed (%s), going on with %d",
            *(self._name, count, *step.bucket[1], type(error).__name__, half),
        )
        trigger: Trigger = "bisect"
        if isinstance(error, OutOfMemoryError):
            trigger = "memory"
            self._limits.shrink(step.bucket, half)
        for part in (flights[:half], flights[half:]):
            self._results.put_back(self._device, PredictStep(step.engine, part, trigger))

    def _classify(self, step: ClassifyStep) -> None:
        for request in step.requests:
            if request.cached:
                self._metrics.batch(step.engine.info, step.engine.info.device, "cached")
        self._answer(step)

    def _answer(self, step: ClassifyStep) -> None:
        """Together, or each alone where that failed: what the engine raises concerns one of them."""
        began, began_ns = time.monotonic(), time.time_ns()
        results = attempt(_segmentations, step)
        if isinstance(results, Failed) and len(step.requests) > 1:
            _for_request(results.take())  # frees memory if that ran out
            for request in step.requests:
                self._answer(ClassifyStep(step.engine, [request]))
            return
        for request in step.requests:
            request.ran("classify", began_ns, results.kind if isinstance(results, Failed) else None)
        if isinstance(results, Failed):
            step.requests[0].fail(_for_request(results.take()))
            return
        units = sum(request.output_pixels * _words(request.job) for request in step.requests)
        self._took(step, CLASSIFY, units, time.monotonic() - began)
        for request, result in zip(step.requests, results, strict=True):
            request.answer(result)

    def _embed(self, step: EmbedStep) -> None:
        began = time.monotonic()
        means = attempt(_means, step)
        if isinstance(means, Failed):
            self._results.not_embedded(step, _for_request(means.take()))
            return
        self._took(step, EMBED, step.tokens, time.monotonic() - began)
        self._results.embedded(step, means)

    def _took(
        self, step: PredictStep | ClassifyStep | EmbedStep, kind: str, units: int, seconds: float
    ) -> None:
        info = step.engine.info
        self._prices.observe(info, kind, units, seconds)
        self._metrics.step(info, info.device, kind, seconds)


def _for_request(error: BaseException) -> BaseException:
    """The error as its request gets it. Frees memory if that ran out."""
    if not is_out_of_memory(error):
        return error
    release_memory(error)
    shortage = OutOfMemoryError("the device has no memory left for this; send a smaller image or retry")
    shortage.__cause__ = error
    return shortage


def _predictions(step: PredictStep) -> list[tuple[Any, Any]]:
    """Each flight's prediction, and the same in the host's memory where others may want it."""
    flights = step.flights
    predictions = step.engine.predict([flight.prepared for flight in flights])
    if len(predictions) != len(flights):
        raise RuntimeError(f"the engine made {len(predictions)} predictions of {len(flights)} images")
    return [
        (prediction, step.engine.to_host(prediction) if flight.hosted else None)
        for flight, prediction in zip(flights, predictions, strict=True)
    ]


def _means(step: EmbedStep) -> Tensor:
    means = step.engine.embed(step.names, step.templates)
    if means.dtype != torch.float32 or means.dim() != 2 or len(means) != len(step.names):
        raise RuntimeError(
            f"the text tower's embeddings are {means.dtype} {list(means.shape)}, not float32 "
            f"[{len(step.names)}, C]"
        )
    return means


def _words(job: Job) -> int:
    return 0 if job.text is None else len(job.text)


def _segmentations(step: ClassifyStep) -> list[EngineResult]:
    engine, requests, began = step.engine, step.requests, time.monotonic()
    if len(requests) == 1:
        results = [engine.classify(requests[0].prediction, requests[0].job)]
    else:
        results = engine.classify_each([one.prediction for one in requests], [one.job for one in requests])
    classify_s = time.monotonic() - began
    return [
        replace(
            result,
            seconds={
                **result.seconds,
                "queue": request.queue_s,
                "predict": request.predict_s,
                "classify": classify_s,
            },
            devices={"predict": request.predicted_on, "classify": engine.info.device},
        )
        for request, result in zip(requests, results, strict=True)
    ]
