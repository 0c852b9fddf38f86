"""One device's thread: batches, their order, deadlines, cancellations, calls, the end."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from service.errors import DeadlineExceededError, NotReadyError
from service.observability.metrics import Metrics
from service.scheduling.engine import EngineResult, Job, PreparedPicture
from tests.service.scheduling.scheduler_fakes import (
    TEXT,
    NumberEngine,
    Running,
    answer,
    batches,
    held,
    job,
    running,
    sample,
    settled,
    soon,
    submitted,
    threads_of,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


async def test_a_batch_is_predicted_at_once_and_classified_one_by_one() -> None:
    metrics, engine = Metrics(), NumberEngine()
    async with running(metrics=metrics) as device:
        async with held(device):
            jobs = [job(engine, number, vocabulary=number % 3) for number in range(5)]
            tasks = await submitted(device, *jobs)
            assert device.depth == 5
            assert engine.batches == []
        results = await settled(tasks)
        assert [answer(result) for result in results] == [(n, n % 3, 4) for n in range(5)]
        assert engine.batches == [[0, 1, 2, 3, 4]]
        assert device.depth == 0
        for result in results:
            assert set(result.seconds) == {"queue", "predict", "classify"}
            assert min(result.seconds.values()) >= 0
    assert batches(metrics, "idle") == 1
    assert (sample(metrics, "ebseg_batch_size_count"), sample(metrics, "ebseg_batch_size_sum")) == (1, 5)


async def test_batched_equals_alone_for_an_engine_that_pads_to_the_largest() -> None:
    engine, other = NumberEngine(), NumberEngine(name="other")
    shapes = [(4, 6), (6, 4), (8, 6)]
    jobs = [job((engine, other)[n % 2], n, shape=shapes[n % 3], vocabulary=n % 3) for n in range(12)]
    async with running() as device:
        alone = [answer(await soon(device.submit(one))) for one in jobs]
        engine.batches.clear()
        async with held(device):
            tasks = await submitted(device, *jobs)
        together = [answer(result) for result in await settled(tasks)]
        assert together == alone == [(n, n % 3, shapes[n % 3][0]) for n in range(12)]
        assert sorted(engine.batches) == [[0, 6], [2, 8], [4, 10]]
        assert device.recent_shapes() == [(8, 6), (6, 4), (4, 6)]


async def test_a_free_device_takes_the_first_at_once_and_the_rest_when_it_is_free_again() -> None:
    gate, metrics = threading.Event(), Metrics()

    def at(stage: str, numbers: list[int]) -> None:
        if numbers == [0]:
            assert gate.wait(WAIT)

    engine = NumberEngine(at=at)
    async with running(metrics=metrics, max_batch_size=3) as device:
        tasks = await submitted(device, job(engine, 0))
        await until(lambda: engine.batches == [[0]])
        tasks += await submitted(device, *(job(engine, n) for n in range(1, 6)))
        assert device.depth == 5
        assert 0 < device.oldest_age() < WAIT
        gate.set()
        await settled(tasks)
        assert device.oldest_age() == 0
    assert engine.batches == [[0], [1, 2, 3], [4, 5]]
    assert (batches(metrics, "full"), batches(metrics, "idle")) == (1, 2)


async def test_most_urgent_first_across_and_inside_buckets() -> None:
    engine = NumberEngine()
    async with running(max_batch_size=2) as device:
        async with held(device):
            tasks = await submitted(
                device,
                job(engine, 1, seconds=8),
                job(engine, 2, seconds=6),
                job(engine, 3, seconds=5, shape=(8, 8)),
                job(engine, 4, seconds=7),
                job(engine, 5, seconds=9, shape=(8, 8)),
            )
        await settled(tasks)
    assert engine.batches == [[3, 5], [2, 4], [1]]


async def test_a_free_device_waits_for_company_no_longer_than_the_delay() -> None:
    metrics, engine = Metrics(), NumberEngine()
    async with running(max_batch_delay_s=1.0, max_batch_size=3, metrics=metrics) as device:
        began = time.monotonic()
        first = asyncio.create_task(device.submit(job(engine, 1)))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(device.submit(job(engine, 2)))
        await settled([first, second])
        assert time.monotonic() - began >= 1.0
        assert first.result().seconds["queue"] >= 1.0
        assert second.result().seconds["queue"] <= first.result().seconds["queue"] - 0.01
        await settled(await submitted(device, *(job(engine, n) for n in (3, 4, 5))))
    assert engine.batches == [[1, 2], [3, 4, 5]]
    assert (batches(metrics, "delay"), batches(metrics, "full")) == (1, 1)


async def test_each_is_answered_before_the_next_is_classified() -> None:
    gates = {number: threading.Event() for number in range(3)}

    def at(stage: str, numbers: list[int]) -> None:
        if stage == "classify":
            assert gates[numbers[0]].wait(WAIT)

    engine = NumberEngine(at=at)
    async with running() as device:
        async with held(device):
            tasks = await submitted(device, *(job(engine, n) for n in range(3)))
        for number, task in enumerate(tasks):
            gates[number].set()
            assert answer(await soon(task))[0] == number
            assert not any(later.done() for later in tasks[number + 1 :])


async def test_late_and_abandoned_ones_are_dropped_before_predict() -> None:
    engine = NumberEngine()
    jobs = [job(engine, n) for n in range(4)]
    async with running() as device:
        async with held(device):
            tasks = await submitted(device, *jobs)
            jobs[1].deadline.at = 0
            jobs[2].deadline.abandoned = True
        results = await settled(tasks)
        with pytest.raises(DeadlineExceededError):
            await device.submit(job(engine, 9, seconds=-1))
    assert engine.batches == [[0, 3]]
    assert [type(result) for result in results] == [
        *(EngineResult, DeadlineExceededError, DeadlineExceededError, EngineResult)
    ]


@pytest.mark.parametrize("stage", ["predict", "classify"])
async def test_late_abandoned_and_cancelled_ones_are_dropped_before_classify(stage: str) -> None:
    jobs: list[Job] = []
    entered, gate = threading.Event(), threading.Event()

    def at(reached: str, numbers: list[int]) -> None:
        if reached == stage and 0 in numbers:
            entered.set()
            assert gate.wait(WAIT)

    engine = NumberEngine(at=at)
    jobs = [job(engine, n) for n in range(5)]
    async with running() as device:
        async with held(device):
            tasks = await submitted(device, *jobs)
        await until(entered.is_set)
        jobs[1].deadline.at = 0
        jobs[2].deadline.abandoned = True
        tasks[3].cancel()
        await asyncio.sleep(0)
        gate.set()
        results = await settled(tasks)
    assert engine.classified == [0, 4]
    assert [type(result) for result in results] == [
        EngineResult,
        DeadlineExceededError,
        DeadlineExceededError,
        asyncio.CancelledError,
        EngineResult,
    ]


async def test_a_cancelled_one_gives_its_place_back_at_once() -> None:
    engine = NumberEngine()
    async with running() as device:
        async with held(device):
            tasks = await submitted(device, *(job(engine, n) for n in range(3)), job(engine, 7, cached=True))
            for task in (tasks[1], tasks[3]):
                task.cancel()
            await settled([tasks[1], tasks[3]])
            assert device.depth == 2
        assert [answer(result)[0] for result in await settled([tasks[0], tasks[2]])] == [0, 2]
    assert engine.batches == [[0, 2]]
    assert engine.classified == [0, 2]


async def test_a_prediction_that_is_there_skips_predict_and_goes_by_its_deadline() -> None:
    metrics, engine = Metrics(), NumberEngine()
    async with running(max_batch_size=2, metrics=metrics) as device:
        async with held(device):
            tasks = await submitted(
                device,
                *(job(engine, n) for n in range(4)),
                *(job(engine, 10 + n, cached=True, seconds=9 - n / 10, vocabulary=n % 3) for n in range(4)),
                job(engine, 14, cached=True, vocabulary=1),
            )
        results = await settled(tasks)
    assert engine.batches == [[0, 1], [2, 3]]
    # the most urgent first; what was predicted goes on before what came after it
    assert engine.classified == [13, 12, 11, 10, 0, 1, 2, 3, 14]
    assert [answer(result)[:2] for result in results[4:]] == [(10 + n, n % 3) for n in range(5)]
    assert results[4].seconds["predict"] == 0
    assert batches(metrics, "cached") == 5


async def test_calls_run_on_the_device_thread_in_order_and_let_batches_pass() -> None:
    engine = NumberEngine()
    log: list[tuple[str, int, str]] = []

    def work(name: str) -> str:
        log.append((name, len(engine.batches), threading.current_thread().name))
        return name

    async with running(max_batch_size=1) as device:
        async with held(device):
            tasks = await submitted(device, *(job(engine, n) for n in range(2)))
            calls = [asyncio.create_task(device.call(partial(work, name))) for name in "abcd"]
            await asyncio.sleep(0)
            calls[1].cancel()
            tasks += await submitted(device, job(engine, 2), job(engine, 3, seconds=5))
        await settled(tasks)
        results = await settled(calls)
    # in their turn: after what came before them, and what is more urgent
    assert log == [(name, 3, "ebseg-cpu") for name in "acd"]
    assert engine.batches == [[3], [0], [1], [2]]
    assert results[0] == "a"
    assert isinstance(results[1], asyncio.CancelledError)
    assert results[2:] == ["c", "d"]


async def test_stalled_for_counts_from_the_last_progress() -> None:
    gate, entered = threading.Event(), threading.Event()

    def at(stage: str, numbers: list[int]) -> None:
        entered.set()
        assert gate.wait(WAIT)

    async with running() as device:
        assert device.stalled_for() == 0
        async with held(device):
            await until(lambda: device.stalled_for() > 0.02)
        task = asyncio.create_task(device.submit(job(NumberEngine(at=at), 1)))
        await until(entered.is_set)
        await until(lambda: device.stalled_for() > 0.02)
        gate.set()
        await soon(task)
        await until(lambda: device.stalled_for() == 0)


async def test_sixteen_shapes_are_remembered() -> None:
    engine = NumberEngine()
    async with running() as device:
        for number in range(20):
            await soon(device.submit(job(engine, number, shape=(number + 1, 4))))
        await soon(device.submit(job(engine, 0, shape=(10, 4))))
        shapes = device.recent_shapes()
    assert shapes[:3] == [(10, 4), (20, 4), (19, 4)]
    assert len(shapes) == 16


async def test_stop_finishes_what_waits_and_refuses_the_rest() -> None:
    engine = NumberEngine()
    device = Running(max_batch_size=2, max_batch_delay_s=60.0)
    tasks = await submitted(device, *(job(engine, n) for n in range(3)))
    call = asyncio.create_task(device.call(lambda: "done"))
    await asyncio.sleep(0)
    stops = [asyncio.create_task(device.stop()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NotReadyError, match="devices are shut down"):
        await device.submit(job(engine, 9))
    with pytest.raises(NotReadyError):
        await device.call(lambda: None)
    await settled(stops)
    assert threads_of(device) == []
    assert [answer(result)[0] for result in await settled(tasks)] == [0, 1, 2]
    assert await soon(call) == "done"
    await soon(device.stop())


async def test_text_that_comes_after_its_device_has_ended_leaves_nobody_waiting() -> None:
    """Its prediction lies on that device, and another one still works."""
    gate, predicted = threading.Event(), threading.Event()

    class OwnMemory(NumberEngine):
        def to_host(self, prediction: Any) -> Any:
            return replace(prediction)

        def predict(self, prepared: Sequence[PreparedPicture]) -> list[Any]:
            predicted.set()
            return super().predict(prepared)

    engine = OwnMemory()
    async with running(names=["cpu:0", "cpu:1"]) as device:
        first, second = device.scheduler.devices
        waiting = device.scheduler.submit(job(engine, 1, devices=2, text=None))
        await until(lambda: predicted.is_set() and waiting.home is not None)
        home, other = (first, second) if waiting.home == 0 else (second, first)
        busy = asyncio.create_task(other.call(lambda: gate.wait(WAIT)))
        await until(lambda: other.progress is not None)
        stopping = asyncio.create_task(device.stop())
        await until(lambda: home.ended)
        device.scheduler.give_text(waiting, TEXT)
        with pytest.raises(NotReadyError):
            await soon(device.scheduler.answer(waiting))
        gate.set()
        await soon(busy)
        assert await soon(stopping) == []


async def test_stop_without_a_request_and_after_everybody_left() -> None:
    idle = Running()
    await soon(idle.stop())
    with pytest.raises(NotReadyError):
        await idle.submit(job(NumberEngine(), 1))
    engine = NumberEngine()
    device = Running()
    async with held(device):
        tasks = await submitted(device, *(job(engine, n) for n in range(3)))
        impatient = asyncio.create_task(device.stop())
        await asyncio.sleep(0)
        for task in (*tasks, impatient):
            task.cancel()
        await settled([*tasks, impatient])
    await soon(device.stop())
    assert threads_of(device) == []
    assert engine.batches == []


def test_a_closed_loop_does_not_end_the_thread() -> None:
    gate, entered = threading.Event(), threading.Event()

    def at(stage: str, numbers: list[int]) -> None:
        if numbers == [0]:
            entered.set()
            assert gate.wait(WAIT)

    engine = NumberEngine(at=at)
    device = Running()
    left = device.submit(job(engine, 0))

    async def begin() -> None:
        left.send(None)

    asyncio.run(begin())  # from here on nobody will ever resume the coroutine that waits
    assert entered.wait(WAIT)
    gate.set()

    async def after() -> tuple[int, ...]:
        result = answer(await soon(device.submit(job(engine, 5))))
        await soon(device.stop())
        return result

    assert asyncio.run(after()) == (5, 0, 4)
    assert threads_of(device) == []
    assert engine.classified == [0, 5]
    left.close()
