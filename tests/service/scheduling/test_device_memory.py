"""Batches by what a device's memory holds, on the pretended accelerator with an end to its memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model.segmenter import Segmenter
from service.errors import OutOfMemoryError
from service.scheduling import torch_engine
from service.scheduling.classified import Prediction
from service.scheduling.device_memory import LOOK_AGAIN, SPARE, UNBOUNDED, Room
from service.scheduling.engine import EngineResult, Job, PreparedPicture
from service.scheduling.torch_engine import TorchEngine, load_engine
from tests.pretended import pretended_device
from tests.pretended_memory import pretended_memory
from tests.service.scheduling.scheduler_fakes import held, running, settled, submitted
from tests.service.scheduling.test_engine_device import job as engine_job

pytestmark = pytest.mark.anyio
SHAPE = (64, 96)
GENEROUS = 2**40


class FakeMemory:
    """Says what a test has it say."""

    def __init__(self, free: int) -> None:
        self.left, self.tensors, self.highest = free, 0, 0

    def free(self) -> int:
        return self.left

    def taken(self) -> int:
        return self.tensors

    def begin(self) -> None:
        self.highest = self.tensors

    def peak(self) -> int:
        return self.highest

    def runs(self, nbytes: int) -> None:
        self.highest = self.tensors + nbytes


def room(memory: FakeMemory, *measured: tuple[tuple[int, int], int, int]) -> Room:
    """Of (shape, pictures, bytes) that warm-ups took."""
    made = Room(memory)
    for shape, pictures, nbytes in measured:
        made.measure(shape, pictures, partial(memory.runs, nbytes))
    return made


def test_what_is_free_over_what_a_picture_took() -> None:
    memory = FakeMemory(1000)
    found = room(memory, ((10, 10), 1, 60), ((10, 10), 2, 180), ((20, 10), 1, 300))
    assert found.most((10, 10)) == int(SPARE * 1000) // 90
    assert found.most((20, 10)) == 3
    assert found.most((11, 10)) == 3  # as the nearest larger one
    assert found.most((40, 10)) == 1  # four times of 300 does not fit, and one picture is always tried
    assert found.most((30, 10)) == 1
    memory.left = 4000
    assert found.most((20, 10)) == 3  # not looked at for every batch
    for _ in range(LOOK_AGAIN):
        found.ran()
    assert found.most((20, 10)) == 12
    assert found.most((40, 10)) == 3


def test_where_nothing_is_known_there_is_no_bound() -> None:
    assert room(FakeMemory(0)).most((10, 10)) == UNBOUNDED
    unbounded = Room.of(torch.device("cpu"))
    assert unbounded.measure((10, 10), 1, lambda: 7) == 7
    unbounded.ran_out((10, 10), 3)
    assert unbounded.most((10, 10)) == UNBOUNDED


def test_running_out_looks_at_the_memory_and_doubts_what_was_measured() -> None:
    memory = FakeMemory(1000)
    found = room(memory, ((10, 10), 1, 100))
    assert found.most((10, 10)) == 9
    memory.left = 300  # others took it
    found.ran_out((10, 10), 9)
    assert found.most((10, 10)) == 2
    memory.left = 1000  # nobody did: pictures took more than was seen
    found = room(memory, ((10, 10), 1, 100))
    found.ran_out((10, 10), 6)
    assert found.most((10, 10)) == 5


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    monkeypatch.setattr(torch_engine, "_LARGEST_BATCH", 4)  # warm-ups are slow here
    with pretended_device() as found:
        yield found


class Watched(TorchEngine):
    """Notes the pictures of each batch, and whether they fitted."""

    def __init__(self, folder: Path, device: torch.device):
        loaded = load_engine(folder, golden=False)
        segmenter = Segmenter(loaded.segmenter.ebseg.to(device), short_side=None)
        super().__init__(segmenter, loaded.info, "digest")
        self.batches: list[tuple[int, bool]] = []

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[Prediction]:
        try:
            done = super().predict(prepared)
        except torch.OutOfMemoryError:
            self.batches.append((len(prepared), False))
            raise
        self.batches.append((len(prepared), True))
        return done


def pictures(engine: TorchEngine, count: int, shape: tuple[int, int] = SHAPE) -> list[PreparedPicture]:
    return [
        engine.prepare(np.random.default_rng(seed).integers(0, 255, (*shape, 3), np.uint8))
        for seed in range(count)
    ]


async def answered(engine: Watched, count: int, one_job: Job) -> list[object]:
    """Results of so many pictures that wait together."""
    jobs = [replace(one_job, prepared=one, output_size=(8, 12)) for one in pictures(engine, count)]
    async with running(max_batch_size=64) as device:
        async with held(device):
            tasks = await submitted(device, *jobs)
        return await settled(tasks)


def taken_by(folder: Path, device: torch.device, count: int) -> tuple[int, int]:
    """Bytes of the warm model, and those that a batch of so many pictures takes beside it."""
    with pretended_memory(GENEROUS) as memory:
        engine = Watched(folder, device)
        engine.warm(SHAPE)
        before = memory.used
        memory.begin()
        engine.predict(pictures(engine, count))
        return before, memory.peak() - before


async def test_a_batch_is_as_large_as_memory_holds(tiny_checkpoint: Path, device: torch.device) -> None:
    """And memory runs out never, at warm-up neither."""
    model, four = taken_by(tiny_checkpoint, device, 4)
    with pretended_memory(model + int(1.3 * four)) as memory:
        engine = Watched(tiny_checkpoint, device)
        engine.warm(SHAPE)
        assert engine.room(SHAPE) in (3, 4)
        assert engine.room((1024, 1024)) == 1
        engine._batch = 64
        one_job = engine_job(engine)
        engine.batches.clear()
        results = await answered(engine, 11, one_job)
        assert [type(one) for one in results] == [EngineResult] * 11
        assert sum(count for count, _ in engine.batches) == 11
        assert max(count for count, _ in engine.batches) == engine.room(SHAPE)
        assert memory.refused == 0


async def test_memory_that_others_take_runs_out_once(tiny_checkpoint: Path, device: torch.device) -> None:
    """Never twice in a row: the next batch of the shape is one that fits."""
    _, eight = taken_by(tiny_checkpoint, device, 8)
    with pretended_memory(GENEROUS) as memory:
        engine = Watched(tiny_checkpoint, device)
        engine.warm(SHAPE)
        assert engine.room(SHAPE) >= 16
        engine._batch, one_job = 16, engine_job(engine)
        memory.size = memory.used + eight // 4
        engine.batches.clear()
        results = await answered(engine, 16, one_job)
        assert [type(one) for one in results] == [EngineResult] * 16
        assert engine.batches[0] == (16, False)
        assert [fitted for _, fitted in engine.batches].count(False) == 1, engine.batches
        assert max(count for count, fitted in engine.batches if fitted) <= 2


async def test_where_not_even_one_fits_each_request_is_told(
    tiny_checkpoint: Path, device: torch.device
) -> None:
    with pretended_memory(GENEROUS) as memory:
        engine = Watched(tiny_checkpoint, device)
        engine.warm(SHAPE)
        engine._batch, one_job = 2, engine_job(engine)
        memory.size = memory.used + 1000
        results = await answered(engine, 2, one_job)
        assert [type(one) for one in results] == [OutOfMemoryError] * 2
        memory.size = GENEROUS
        assert [type(one) for one in await answered(engine, 2, one_job)] == [EngineResult] * 2
