"""An engine that computes nothing, whose answers tell whose they are; and schedulers around it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.vocabulary.classes import Vocabulary
from service.observability.metrics import Metrics
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult, Job, Measurement, PreparedPicture
from service.scheduling.price import Prices
from service.scheduling.scheduler import Scheduler
from tests.service.fakes import INFO
from tests.waiting import WAIT

VOCABULARIES = tuple(Vocabulary.of([f"thing {index}"]) for index in range(3))
TEXT = torch.zeros(1, 4)


@dataclass(frozen=True)
class NumberPrediction:
    """Of picture `number`. An engine that pads to the largest of a batch would get `rows` wrong."""

    number: int
    rows: int
    nbytes: int = 8


class NumberEngine:
    """Pictures are numbers.

    Args:
        at: notified of each "predict" and "classify" with the numbers concerned, on the device's thread.
        predict_faults: raised by every batch that holds the number.
        classify_faults: raised by classify for the number.
        capacity: a larger batch raises `shortage`.
    """

    def __init__(
        self,
        *,
        name: str = "numbers",
        at: Callable[[str, list[int]], None] = lambda stage, numbers: None,
        predict_faults: dict[int, BaseException] | None = None,
        classify_faults: dict[int, BaseException] | None = None,
        capacity: int = 1000,
        shortage: BaseException | None = None,
    ):
        self.info = replace(INFO, name=name)
        self.text_digest = "t" * 64
        self.at = at
        self.predict_faults = predict_faults or {}
        self.classify_faults = classify_faults or {}
        self.capacity = capacity
        self.shortage = shortage or MemoryError()
        self.batches: list[list[int]] = []  # numbers of each predict, in order
        self.classified: list[int] = []
        self.batch = 1000
        self.classified_at_once = 1

    def room(self, shape: tuple[int, int]) -> int:
        return 1000

    def cost(self, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        return prepared(int(picture[0, 0, 0]), (picture.shape[0], picture.shape[1]))

    def tokens(self, names: Sequence[str], templates: Sequence[str]) -> list[int]:
        return [len(templates)] * len(names)

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Any]:
        numbers = [one.pixels for one in prepared]
        self.batches.append(numbers)
        self.at("predict", numbers)
        if len(numbers) > self.capacity:
            raise self.shortage
        for number in numbers:
            if number in self.predict_faults:
                raise self.predict_faults[number]
        rows = max(one.shape[0] for one in prepared)
        return [NumberPrediction(number, rows) for number in numbers]

    def classify(self, prediction: Any, job: Job) -> EngineResult:
        self.classified.append(prediction.number)
        self.at("classify", [prediction.number])
        if prediction.number in self.classify_faults:
            raise self.classify_faults[prediction.number]
        answer = [prediction.number, VOCABULARIES.index(job.vocabulary), prediction.rows]
        return EngineResult(
            labels=np.array([answer], np.uint16),
            confidence=np.ones((1, 3), np.float32),
            scores=None,
            trained=[True],
        )

    def classify_each(self, predictions: Sequence[Any], jobs: Sequence[Job]) -> list[EngineResult]:
        self.at("classify each", [one.number for one in predictions])
        return [self.classify(one, job) for one, job in zip(predictions, jobs, strict=True)]

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(names), 4)

    def to_host(self, prediction: Any) -> Any:
        return prediction

    def warm(self, shape: tuple[int, int]) -> Sequence[Measurement]:
        self.at("warm", [])
        return ()

    def close(self) -> None:
        self.at("close", [])


def prepared(number: int, shape: tuple[int, int] = (4, 6)) -> PreparedPicture:
    return PreparedPicture(pixels=number, shape=shape, cost=shape[0] * shape[1])


def job(
    engine: NumberEngine,
    number: int,
    *,
    shape: tuple[int, int] = (4, 6),
    vocabulary: int = 0,
    seconds: float = 60.0,
    cached: bool = False,
    devices: int = 1,
    **changes: Any,
) -> Job:
    wanted = Job(
        engines=(engine,) * devices,
        prepared=None if cached else prepared(number, shape),
        prediction=NumberPrediction(number, shape[0]) if cached else None,
        vocabulary=VOCABULARIES[vocabulary],
        text=TEXT,
        output_size=(1, 3),
        threshold=0.0,
        balance=None,
        scores=False,
        deadline=Deadline(seconds),
    )
    return replace(wanted, **changes)


def answer(result: EngineResult) -> tuple[int, ...]:
    """Number of the picture, of its vocabulary, and rows."""
    return tuple(int(value) for value in result.labels[0])


class Running:
    """A scheduler, the first of its devices, and what tests do with both."""

    def __init__(self, **options: Any):
        names, metrics = options.pop("names", ["cpu"]), options.pop("metrics", None) or Metrics()
        metrics.version_came(NumberEngine().info, names)
        self.scheduler = Scheduler(
            names,
            **{
                "max_batch_size": 8,
                "max_batch_delay_s": 0.0,
                "ageing_s": 10.0,
                "metrics": metrics,
                "prices": Prices(),
                **options,
            },
        )
        self.device = self.scheduler.devices[0]
        self.call = self.device.call
        self.stalled_for = self.device.stalled_for
        self.recent_shapes = self.device.recent_shapes
        self.oldest_age = self.scheduler.oldest_age
        self.stop = self.scheduler.stop

    async def submit(self, wanted: Job) -> EngineResult:
        return await self.scheduler.answer(self.scheduler.submit(wanted))

    async def embed(
        self,
        engine: NumberEngine,
        names: Sequence[str],
        templates: Sequence[str] = ("{}",),
        *,
        seconds: float = 60.0,
    ) -> torch.Tensor:
        tokens = engine.tokens(names, templates)
        return await self.scheduler.embed((engine,), names, templates, tokens, Deadline(seconds))

    @property
    def depth(self) -> int:
        return self.scheduler.depth


def batches(metrics: Metrics, trigger: str) -> float:
    """How many batches ran for this reason."""
    return sample(metrics, "ebseg_batches_total", trigger=trigger)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample of `NumberEngine`'s version on the CPU."""
    of = {"model": "numbers", "version": str(INFO.version), "device": INFO.device}
    return metrics.registry.get_sample_value(name, of | labels) or 0.0


def threads_of(device: "Running") -> list[threading.Thread]:
    names = [f"ebseg-{one.name}" for one in device.scheduler.devices]
    return [thread for thread in threading.enumerate() if thread.name in names]


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Running]:
    """A scheduler that is stopped at the end, whose threads have survived until then and not longer."""
    device = Running(**options)
    try:
        yield device
        if threads_of(device):
            assert await soon(device.call(lambda: "alive")) == "alive"
    finally:
        await soon(device.stop())
        assert threads_of(device) == []


@asynccontextmanager
async def held(device: Running) -> AsyncIterator[None]:
    """Keeps the device busy with a call, so that what is submitted meanwhile waits."""
    gate, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(entered.set)
        assert gate.wait(WAIT)

    holding = asyncio.create_task(device.call(work))
    try:
        await soon(entered.wait())
        yield
    finally:
        gate.set()
        await soon(holding)


async def submitted(device: Running, *jobs: Job) -> "list[asyncio.Task[EngineResult]]":
    """Tasks that wait for these jobs, submitted in this order."""
    tasks = [asyncio.create_task(device.submit(one)) for one in jobs]
    await asyncio.sleep(0)
    return tasks


async def soon(work: Any) -> Any:
    async with asyncio.timeout(WAIT):
        return await work


async def settled(tasks: "Sequence[asyncio.Task[Any]]") -> list[Any]:
    """Results or exceptions of all tasks."""
    result: list[Any] = await soon(asyncio.gather(*tasks, return_exceptions=True))
    return result
