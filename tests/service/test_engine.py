"""TorchEngine around a segmenter that only pretends."""

import asyncio
import contextlib
import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from model.errors import CheckpointError
from model.segmenter import LabelMap, Segmenter
from model.vocabulary import Vocabulary
from service.engine import Deadline, Job, ModelInfo, TorchEngine, load_segmenter
from service.errors import DeadlineExceededError, NotReadyError
from service.settings import SettingsError
from tests.service.fakes import INFO, WAIT, until

pytestmark = pytest.mark.anyio
VOCABULARY = Vocabulary.of(["sky", "tree"])


class Pretender:
    """Notes what is asked of it, and from which thread."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[int] = set()
        self.ebseg = SimpleNamespace(trained=lambda vocabulary: [False, True])

    def note(self, name: str, value: Any = None) -> None:
        self.calls.append((name, value))
        self.threads.add(threading.get_ident())

    def prepare(self, picture: Any) -> torch.Tensor:
        return torch.zeros(3, 2, 2, dtype=torch.uint8)

    def predict(self, prepared: Any) -> str:
        self.note("predict", prepared)
        assert self.gate.wait(WAIT)
        if isinstance(prepared[0], Exception):
            raise prepared[0]
        return "predictions"

    def encode_text(self, vocabulary: Vocabulary) -> str:
        self.note("text", vocabulary)
        return "text"

    def label_map(self, predictions: str, vocabulary: Vocabulary, **options: Any) -> LabelMap:
        self.note("label_map", options)
        size = options["output_size"]
        return LabelMap(labels=np.ones(size, np.uint16), confidence=np.zeros(size, np.float32))

    def score_maps(self, predictions: str, vocabulary: Vocabulary, **options: Any) -> torch.Tensor:
        self.note("score_maps", options)
        return torch.full((len(vocabulary), *options["output_size"]), 0.5)


def job(prepared: Any = "picture", seconds: float = WAIT, **values: Any) -> Job:
    chosen = {"output_size": (2, 3), "threshold": 0.25, "balance": INFO.balance, "scores": False, **values}
    return Job(prepared=prepared, vocabulary=VOCABULARY, deadline=Deadline(seconds), **chosen)


@contextlib.asynccontextmanager
async def started(pretender: Pretender) -> Any:
    engine = TorchEngine(lambda: (cast(Segmenter, pretender), INFO))
    await engine.start()
    try:
        yield engine
    finally:
        pretender.gate.set()
        await engine.stop()


async def test_a_job_goes_through_all_steps_on_one_thread() -> None:
    pretender = Pretender()
    async with started(pretender) as engine:
        assert engine.info is INFO
        result = await engine.segment(job())
        await engine.segment(job())
    assert (result.labels == 1).all()
    assert result.confidence.shape == (2, 3)
    assert result.scores is None
    assert result.trained == [False, True]
    assert list(result.seconds) == ["queue", "predict", "text", "classify"]
    assert all(0 <= seconds < 1 for seconds in result.seconds.values())
    steps = [("predict", ["picture"]), ("text", VOCABULARY)]
    assert pretender.calls[:2] == steps
    options = {"output_size": (2, 3), "text": "text", "threshold": 0.25, "balance": INFO.balance}
    assert pretender.calls[2] == ("label_map", options)
    assert len(pretender.calls) == 6
    assert len(pretender.threads) == 1
    assert threading.get_ident() not in pretender.threads


async def test_scores_come_as_halves() -> None:
    pretender = Pretender()
    async with started(pretender) as engine:
        result = await engine.segment(job(scores=True))
    assert result.scores.dtype == np.float16
    assert result.scores.shape == (2, 2, 3)
    assert pretender.calls[3][1] == {"output_size": (2, 3), "text": "text", "balance": INFO.balance}


async def test_a_failing_job_fails_alone() -> None:
    async with started(Pretender()) as engine:
        results = await asyncio.gather(
            engine.segment(job()),
            engine.segment(job(ValueError("poison"))),
            engine.segment(job()),
            return_exceptions=True,
        )
        assert engine.queue_depth == 0
    assert isinstance(results[1], ValueError)
    assert [type(result).__name__ for result in results] == ["Segmentation", "ValueError", "Segmentation"]


async def test_jobs_that_are_abandoned_or_late_never_run() -> None:
    pretender = Pretender()
    pretender.gate.clear()
    async with started(pretender) as engine:
        first = asyncio.create_task(engine.segment(job()))
        await until(lambda: pretender.calls)
        cancelled = asyncio.create_task(engine.segment(job()))
        late = asyncio.create_task(engine.segment(job(seconds=0.0)))
        left = job()
        abandoned = asyncio.create_task(engine.segment(left))
        await until(lambda: engine.queue_depth == 3)
        cancelled.cancel()
        left.deadline.abandoned = True
        await until(lambda: engine.queue_depth == 2)
        pretender.gate.set()
        await first
        for task in (late, abandoned):
            with pytest.raises(DeadlineExceededError):
                await task
        assert engine.queue_depth == 0
    assert [name for name, _ in pretender.calls].count("predict") == 1


async def test_a_deadline_that_passes_while_predicting_ends_the_job() -> None:
    pretender = Pretender()
    pretender.gate.clear()
    async with started(pretender) as engine:
        running = job()
        task = asyncio.create_task(engine.segment(running))
        await until(lambda: pretender.calls)
        running.deadline.abandoned = True
        pretender.gate.set()
        with pytest.raises(DeadlineExceededError):
            await task
    assert [name for name, _ in pretender.calls] == ["predict"]


async def test_stop_finishes_what_waits_and_takes_nothing_more() -> None:
    pretender = Pretender()
    pretender.gate.clear()
    async with started(pretender) as engine:
        tasks = [asyncio.create_task(engine.segment(job())) for _ in range(3)]
        await until(lambda: engine.queue_depth == 2)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        with pytest.raises(NotReadyError):
            await engine.segment(job())
        pretender.gate.set()
        await stopping
        results = await asyncio.gather(*tasks)
    assert len(results) == 3


async def test_before_and_without_a_model() -> None:
    def broken() -> tuple[Segmenter, ModelInfo]:
        raise CheckpointError("no weights")

    engine = TorchEngine(broken)
    with pytest.raises(NotReadyError):
        _ = engine.info
    with pytest.raises(CheckpointError, match="no weights"):
        await engine.start()
    await engine.stop()


async def test_a_device_that_is_not_there(tiny_checkpoint: Path) -> None:
    with pytest.raises(SettingsError, match="device cuda:99: there is none"):
        load_segmenter(tiny_checkpoint, device="cuda:99")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_checkpoint_is_served_as_it_says(tiny_checkpoint: Path, dtype: str) -> None:
    segmenter, info = load_segmenter(tiny_checkpoint, device="cpu", dtype=dtype)
    expected = ("ebseg-tiny", 1, True, "tiny", "cpu", dtype)
    assert (info.name, info.version, info.untrained, info.variant, info.device, info.dtype) == expected
    assert info.balance == segmenter.ebseg.config.balance
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    engine = TorchEngine(lambda: (segmenter, info))
    await engine.start()
    try:
        prepared = engine.prepare(picture)
        result = await engine.segment(
            dataclasses.replace(job(prepared), output_size=(40, 60), threshold=0.0, balance=None, scores=True)
        )
    finally:
        await engine.stop()
    alone = segmenter.segment(picture, VOCABULARY)
    assert (result.labels == alone.labels).all()
    assert np.abs(result.confidence - alone.confidence).max() < 1e-6
    assert result.scores is not None
    assert (result.scores.argmax(0) + 1 == alone.labels).mean() > 0.99
    assert result.trained == [True, True]
