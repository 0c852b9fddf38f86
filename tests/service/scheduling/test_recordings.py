"""What a warm-up records, within its bounds, on the pretended accelerator."""

from collections.abc import Iterator
from pathlib import Path
from weakref import ref

import pytest
import torch

from service.scheduling import recordings, torch_engine
from tests.pretended import NAME, pretended_device
from tests.pretended_graphs import PretendedGraph, pretended_graphs
from tests.pretended_memory import pretended_memory
from tests.service.scheduling.test_engine_device import on, picture

SHAPE = (64, 96)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    monkeypatch.setattr(torch_engine, "_LARGEST_BATCH", 4)  # warm-ups are slow here
    monkeypatch.setattr(torch_engine, "_WORTH", 0.0)  # the largest is the best
    with pretended_device() as found, pretended_graphs():
        yield found


def test_a_warm_up_records_and_what_is_served_is_replayed(
    tiny_checkpoint: Path, device: torch.device
) -> None:
    engine = on(tiny_checkpoint, device)
    steps = [one.step for one in engine.warm(SHAPE)]
    assert steps == ["predict", "embed", "embed", "classify"]
    assert engine.batch == 4
    assert engine.segmenter.ebseg.graphs.counts(SHAPE) == [4, 2, 1]
    engine.warm((32, 64))
    assert engine.segmenter.ebseg.graphs.counts((32, 64)) == [4, 2, 1]
    PretendedGraph.replays.clear()
    engine.predict([engine.prepare(picture(SHAPE, seed)) for seed in range(3)])
    assert PretendedGraph.replays == [2, 1]
    freed = ref(engine.segmenter.ebseg)
    engine.close()
    assert freed() is None  # with its recordings, and without a garbage collection


def test_a_bound_of_time(
    tiny_checkpoint: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "RECORD_SECONDS", 1e-9)
    engine = on(tiny_checkpoint, device)
    engine.warm(SHAPE)
    engine.warm((32, 64))
    assert engine.segmenter.ebseg.graphs.counts(SHAPE) == [1]
    assert engine.segmenter.ebseg.graphs.counts((32, 64)) == []
    assert len(engine.predict([engine.prepare(picture((32, 64), 0))])) == 1


def test_a_bound_of_memory(
    tiny_checkpoint: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "RECORD_SHARE", 1e-6)
    with pretended_memory(2**32):
        engine = on(tiny_checkpoint, device)
        engine.warm(SHAPE)
        assert engine.segmenter.ebseg.graphs.counts(SHAPE) == [1]


def test_memory_that_runs_out_ends_it(
    tiny_checkpoint: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on(tiny_checkpoint, device)
    record, asked = type(engine.segmenter.ebseg).record, []

    def scarce(self: object, shape: tuple[int, int], count: int) -> bool:
        asked.append(count)
        if count > 1:
            raise torch.OutOfMemoryError("out of memory")
        return record(self, shape, count)  # type: ignore[arg-type]

    monkeypatch.setattr(type(engine.segmenter.ebseg), "record", scarce)
    engine.warm(SHAPE)
    engine.warm((32, 64))
    assert asked == [1, 2]
    assert engine.segmenter.ebseg.graphs.counts(SHAPE) == [1]
    assert device.type == NAME
