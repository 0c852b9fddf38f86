"""What an engine may do wrong, and that nobody else notices."""

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest
import torch

from service.errors import OutOfMemoryError
from service.observability.metrics import Metrics
from service.scheduling.engine import EngineResult, ModelInfo, PreparedPicture
from service.scheduling.out_of_memory import is_out_of_memory, release_memory
from service.scheduling.price import Prices
from tests.service.scheduling.scheduler_fakes import (
    NumberEngine,
    Running,
    answer,
    batches,
    held,
    job,
    running,
    settled,
    soon,
    submitted,
)

pytestmark = pytest.mark.anyio

FAULTS = [
    ValueError("bad"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    asyncio.CancelledError(),
]
SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def by_kind(error: BaseException) -> str:
    return f"{type(error).__name__}-{error}"[:40]


def own(result: Any, fault: BaseException) -> bool:
    """Whether a result is the fault, or a RuntimeError of it where no future could carry it."""
    if isinstance(fault, ValueError):
        return result is fault
    return isinstance(result, RuntimeError) and result.__cause__ is fault


async def together(device: Running, engine: NumberEngine, count: int, first: int = 0) -> list[Any]:
    """Results of so many pictures that come while the device is busy."""
    async with held(device):
        tasks = await submitted(device, *(job(engine, first + n, vocabulary=n % 3) for n in range(count)))
    return await settled(tasks)


@pytest.mark.parametrize("fault", FAULTS, ids=by_kind)
async def test_only_the_culprit_of_a_failing_predict_fails(fault: BaseException) -> None:
    metrics, engine = Metrics(), NumberEngine(predict_faults={5: fault})
    async with running(metrics=metrics) as device:
        results = await together(device, engine, 8)
        assert own(results[5], fault)
        assert [answer(r) for n, r in enumerate(results) if n != 5] == [
            (n, n % 3, 4) for n in range(8) if n != 5
        ]
    assert engine.batches == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]
    assert batches(metrics, "bisect") == 6


@pytest.mark.parametrize("fault", FAULTS, ids=by_kind)
async def test_a_classify_that_fails_is_its_own_affair(fault: BaseException) -> None:
    engine = NumberEngine(classify_faults={1: fault})
    async with running() as device:
        results = await together(device, engine, 3)
        assert own(results[1], fault)
        assert [answer(results[n])[0] for n in (0, 2)] == [0, 2]
        with pytest.raises(type(fault) if isinstance(fault, ValueError) else RuntimeError):
            await soon(device.submit(job(engine, 1, cached=True)))
    assert engine.batches == [[0, 1, 2]]


@pytest.mark.parametrize("fault", FAULTS, ids=by_kind)
async def test_a_call_that_fails_tells_its_caller(fault: BaseException) -> None:
    def work() -> None:
        raise fault

    engine = NumberEngine()
    async with running() as device:
        call = asyncio.create_task(device.call(work))
        tasks = await submitted(device, job(engine, 1))
        results = await settled([call, *tasks])
        assert own(results[0], fault)
        assert answer(results[1])[0] == 1


@pytest.mark.parametrize("shortage", SHORTAGES, ids=by_kind)
async def test_a_batch_that_does_not_fit_is_halved(shortage: BaseException) -> None:
    metrics, engine = Metrics(), NumberEngine(capacity=2, shortage=shortage)
    async with running(metrics=metrics) as device:
        results = await together(device, engine, 8)
        assert [answer(result)[0] for result in results] == list(range(8))
        assert engine.batches == [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6, 7]]
        assert batches(metrics, "memory") == 5
        engine.batches.clear()
        await together(device, engine, 4)  # the smaller size is remembered ...
        assert engine.batches == [[0, 1], [2, 3]]
        engine.capacity = 4
        for _ in range(14):
            await together(device, engine, 4)
        engine.batches.clear()
        await together(device, engine, 8)  # ... until 32 batches of it went well
        assert engine.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_a_picture_that_never_fits_fails_alone() -> None:
    shortage = MemoryError("tensor")
    engine = NumberEngine(predict_faults={3: shortage})
    async with running() as device:
        results = await together(device, engine, 5)
        assert isinstance(results[3], OutOfMemoryError)
        assert results[3].__cause__ is shortage
        assert [answer(results[n])[0] for n in (0, 1, 2, 4)] == [0, 1, 2, 4]


async def test_classify_and_calls_that_run_out_of_memory_say_so() -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = NumberEngine(classify_faults={0: MemoryError()})
    async with running() as device:
        results = await together(device, engine, 2)
        assert isinstance(results[0], OutOfMemoryError)
        assert answer(results[1])[0] == 1
        with pytest.raises(OutOfMemoryError):
            await soon(device.call(work))


async def test_an_engine_that_miscounts_or_answers_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NumberEngine()
    async with running() as device:
        monkeypatch.setattr(engine, "predict", lambda prepared: [])
        for result in await together(device, engine, 2):
            assert isinstance(result, RuntimeError)
            assert str(result) == "the engine made 0 predictions of 1 images"
        monkeypatch.undo()
        right = engine.classify
        monkeypatch.setattr(engine, "classify", lambda p, j: right(p, j) if p.number else None)
        results = await together(device, engine, 2)
        assert isinstance(results[0], AttributeError)
        assert answer(results[1])[0] == 1


class BrokenPrices(Prices):
    """Fails at one kind of step."""

    def __init__(self, step: str):
        super().__init__()
        self.step = step

    def observe(self, info: ModelInfo, step: str, units: int, seconds: float) -> None:
        if step == self.step:
            raise RuntimeError("the meter is broken")


@pytest.mark.parametrize("step", ["predict", "classify"])
async def test_a_fault_of_the_scheduler_itself_leaves_nobody_waiting(
    step: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = NumberEngine(predict_faults={0: ValueError("bad")})
    with caplog.at_level(logging.ERROR):
        async with running(prices=BrokenPrices(step)) as device:
            results = await together(device, engine, 4)
            assert device.depth == 0
    assert isinstance(results[0], ValueError)
    assert [str(result) for result in results[1:]] == ["the meter is broken"] * 3
    assert "device cpu: a step ended unexpectedly" in caplog.text


async def test_a_fault_of_the_scheduler_itself_ends_who_waits_for_text() -> None:
    engine = NumberEngine()
    async with running(prices=BrokenPrices("embed")) as device:
        with pytest.raises(RuntimeError, match="the meter is broken"):
            await soon(device.embed(engine, ["sky", "tree"]))


async def test_prices_are_told_what_good_steps_took() -> None:
    seen: list[tuple[str, int]] = []

    class SeenPrices(Prices):
        def observe(self, info: ModelInfo, step: str, units: int, seconds: float) -> None:
            assert seconds >= 0
            seen.append((step, units))

    engine = NumberEngine(predict_faults={2: ValueError("bad")})
    async with running(prices=SeenPrices()) as device:
        await together(device, engine, 4)
        await soon(device.submit(job(engine, 9, cached=True)))
        await soon(device.embed(engine, ["sky", "tree"], ["{}", "a {}"]))
    one = 1 * 3  # output pixels times classes
    assert seen == [
        ("predict", 48),
        *[("classify", one)] * 2,
        ("predict", 24),
        *[("classify", one)] * 2,
        ("embed", 4),
    ]


async def test_nothing_of_a_request_is_kept_by_an_idle_device() -> None:
    class Pixels(float):
        """A number that a weak reference can point at."""

    def failing(prepared: Any) -> list[Any]:
        held_here = list(prepared)
        raise MemoryError(len(held_here))

    engine = NumberEngine()
    async with running() as device:
        await soon(device.submit(job(engine, 0)))
        gc.disable()
        try:
            for broken in (False, True):
                if broken:
                    engine.predict = failing  # type: ignore[method-assign]
                watched = []
                jobs = [job(engine, n) for n in range(3)]
                for one in jobs:
                    pixels = Pixels(1)
                    watched.append(weakref.ref(pixels))
                    object.__setattr__(one, "prepared", PreparedPicture(pixels=pixels, shape=(4, 6), cost=24))
                del pixels
                async with held(device):
                    tasks = await submitted(device, *jobs)
                results = await settled(tasks)
                expected = OutOfMemoryError if broken else EngineResult
                assert all(isinstance(result, expected) for result in results)
                engine.batches.clear()
                engine.classified.clear()
                del jobs, one, tasks, results
                await soon(device.call(lambda: None))
                await soon(asyncio.sleep(0.01))
                assert [reference() for reference in watched] == [None] * 3
        finally:
            gc.enable()


def test_a_shortage_is_told_from_other_faults() -> None:
    assert all(is_out_of_memory(error) for error in SHORTAGES)
    assert not any(is_out_of_memory(error) for error in FAULTS)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_release_memory_frees_what_the_failed_work_held() -> None:
    kept: list[Any] = []

    class Large:
        pass

    def work() -> None:
        large = Large()
        kept.append(weakref.ref(large))
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("out of memory") from None

    with pytest.raises(RuntimeError) as raised:
        work()
    assert kept[0]() is not None
    release_memory(raised.value)
    assert kept[0]() is None


async def test_label_maps_that_fail_together_are_made_alone() -> None:
    """Only the culprit fails, and a shortage of memory that one does not meet alone is nobody's."""
    seen: list[tuple[str, list[int]]] = []
    engine = NumberEngine(
        at=lambda stage, numbers: seen.append((stage, numbers)), classify_faults={2: ValueError("bad")}
    )
    engine.classified_at_once = 8
    async with running() as device:
        results = await together(device, engine, 4)
    assert [type(one) for one in results] == [EngineResult, EngineResult, ValueError, EngineResult]
    assert ("classify each", [0, 1, 2, 3]) in seen
    assert [answer(results[number])[0] for number in (0, 1, 3)] == [0, 1, 3]
