"""Thousands of schedules by seed: whatever others do, each gets its own answer, or its own error.

The engine stops at every step and lets the event loop act: submit, cancel, let deadlines pass, call. So a
seed always gives the same schedule, whatever the machine does.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from service.errors import DeadlineExceededError, OutOfMemoryError
from service.observability.metrics import Metrics
from service.scheduling.engine import EngineResult, Job
from tests.service.scheduling.scheduler_fakes import NumberEngine, Running, answer, held, job, running, soon
from tests.waiting import WAIT

pytestmark = pytest.mark.anyio

SEEDS = 3200
GROUPS = 4
MOST = 12  # requests of a schedule
SHAPES = [(4, 6), (6, 4)]
CAPACITIES = [1, 2, 3, 1000, 1000, 1000]


class PoisonError(Exception):
    """Knows which picture it is of."""


class Client:
    """One request or call, and what was done to it."""

    def __init__(self, number: int, wanted: Job | None, task: "asyncio.Task[Any]"):
        self.number = number
        self.job = wanted
        self.task = task
        self.cancelled = False
        self.late = False  # its deadline is over, or it was abandoned

    @property
    def dead(self) -> bool:
        return self.cancelled or self.late


class Schedule:
    """Random clients of one device, driven by a seed."""

    def __init__(self, seed: int, loop: asyncio.AbstractEventLoop, metrics: Metrics):
        self.random = random.Random(seed)
        self.loop = loop
        self.metrics = metrics
        self.clients: list[Client] = []
        self.poison: dict[int, BaseException] = {}  # of predict and of calls
        self.classify_faults: dict[int, BaseException] = {}
        self.wrong: list[str] = []  # what an engine saw and should not have seen
        self.calls_run: list[int] = []
        self.engines = [NumberEngine(capacity=self.random.choice(CAPACITIES)) for _ in range(2)]
        for engine in self.engines:
            engine.at = partial(self.at, engine)
            engine.predict_faults = self.poison
            engine.classify_faults = self.classify_faults
        self.device: Running

    # the device's thread

    def at(self, engine: NumberEngine | None, stage: str, numbers: list[int]) -> None:
        """Checks that only wanted work is done, then lets the loop act and waits for it."""
        for number in numbers:
            wanted = self.clients[number].job
            if wanted is not None and wanted.engines[0] is not engine:
                self.wrong.append(f"{stage} of {number} by another model")
            if self.clients[number].dead:
                self.wrong.append(f"{stage} of {number}, which is dead")
            if self.clients[number].task.done():
                self.wrong.append(f"{stage} of {number}, which has its response")
        self.meet()

    def meet(self) -> None:
        met = threading.Event()
        self.loop.call_soon_threadsafe(self.act, met)
        if not met.wait(WAIT):
            self.wrong.append("the event loop did not come")

    # the event loop's side

    def act(self, met: threading.Event) -> None:
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            self.random.choice([self.submit, self.submit, self.cancel, self.cancel, self.expire, self.call])()
        self.loop.call_soon(met.set)  # after the first steps of new tasks and of cancelled ones

    def submit(self) -> None:
        number = len(self.clients)
        if number >= MOST:
            return
        engine = self.random.choice([self.engines[0], self.engines[0], self.engines[1]])
        wanted = job(
            engine,
            number,
            shape=self.random.choice([SHAPES[0], *SHAPES]),
            vocabulary=number % 3,
            seconds=self.random.choice([5.0, 60.0, 100.0]),
            cached=self.random.random() < 0.15,
        )
        fate = self.random.random()
        if fate < 0.15:
            self.poison[number] = self.poisonous(number)
        elif fate < 0.22:
            self.classify_faults[number] = self.poisonous(number)
        task = self.loop.create_task(self.device.submit(wanted))
        self.clients.append(Client(number, wanted, task))

    def poisonous(self, number: int) -> BaseException:
        kinds: list[Callable[[int], BaseException]] = [PoisonError, PoisonError, SystemExit, MemoryError]
        return self.random.choice(kinds)(number)

    def call(self) -> None:
        number = len(self.clients)
        if number >= MOST:
            return
        fails = self.random.random() < 0.3

        def work() -> int:
            self.at(None, "call", [number])
            self.calls_run.append(number)
            if fails:
                raise PoisonError(number)
            return number

        if fails:
            self.poison[number] = PoisonError(number)
        self.clients.append(Client(number, None, self.loop.create_task(self.device.call(work))))

    def cancel(self) -> None:
        waiting = [client for client in self.clients if not client.task.done()]
        if waiting:
            client = self.random.choice(waiting)
            client.cancelled = True
            client.task.cancel()

    def expire(self) -> None:
        waiting = [client for client in self.clients if client.job and not client.task.done()]
        if waiting:
            client = self.random.choice(waiting)
            assert client.job is not None
            client.late = True
            if self.random.random() < 0.5:
                client.job.deadline.at = 0
            else:
                client.job.deadline.abandoned = True

    async def run(self) -> None:
        size = self.random.choice([1, 2, 3, 4, 8])
        async with running(max_batch_size=size, ageing_s=1000.0, metrics=self.metrics) as self.device:
            async with held(self.device):
                for _ in range(self.random.randint(1, 8)):
                    self.random.choice([self.submit, self.submit, self.submit, self.call])()
                await asyncio.sleep(0)
                for _ in range(self.random.randint(0, 2)):
                    self.random.choice([self.cancel, self.expire])()
                await asyncio.sleep(0)
            while True:  # what still runs may bring new ones
                await soon(self.device.call(lambda: None))
                if all(client.task.done() for client in self.clients):
                    break
                await soon(asyncio.wait([client.task for client in self.clients]))
            assert (self.device.depth, self.device.oldest_age()) == (0, 0)
        assert self.wrong == []
        for client in self.clients:
            self.check(client)

    def check(self, client: Client) -> None:
        """One of what may have become of a client, and nothing else."""
        number, task = client.number, client.task
        if task.cancelled():
            assert client.cancelled
            return
        assert not client.cancelled
        error = task.exception()
        if isinstance(error, DeadlineExceededError):
            assert client.late
        elif client.job is None:
            assert number in self.calls_run
            assert task.result() == number if error is None else isinstance(error, PoisonError)
            assert (error is not None) == (number in self.poison)
        elif error is not None:
            self.check_fault(client, error)
        else:
            result: EngineResult = task.result()
            picture = client.job.prepared
            rows = client.job.prediction.rows if picture is None else picture.shape[0]
            assert answer(result) == (number, number % 3, rows)
            assert number not in self.classify_faults
            assert client.job.prepared is None or number not in self.poison

    def check_fault(self, client: Client, error: BaseException) -> None:
        assert client.job is not None
        fault = self.classify_faults.get(client.number)
        if client.job.prepared is not None:
            fault = self.poison.get(client.number, fault)
        assert fault is not None, "an error without a fault of its own"
        assert fault.args == (client.number,)
        if isinstance(fault, PoisonError):
            assert error is fault
        else:
            assert isinstance(error, OutOfMemoryError if isinstance(fault, MemoryError) else RuntimeError)
            assert error.__cause__ is fault


@pytest.mark.parametrize("group", range(GROUPS))
async def test_nobody_is_disturbed_in_any_schedule(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduling.step_runner.LOG.disabled", True)
    loop = asyncio.get_running_loop()
    outcomes: Counter[str] = Counter()
    metrics = Metrics()  # making one takes longer than a schedule
    for seed in range(group, SEEDS, GROUPS):
        schedule = Schedule(seed, loop, metrics)
        try:
            await schedule.run()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        outcomes.update(ending(client.task) for client in schedule.clients)
    # the schedules reach everything that can happen
    assert {kind for kind, count in outcomes.items() if count > 50} == {
        *("answered", "cancelled", "DeadlineExceededError", "PoisonError", "RuntimeError"),
        "OutOfMemoryError",
    }


def ending(task: "asyncio.Task[Any]") -> str:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "answered" if error is None else type(error).__name__
