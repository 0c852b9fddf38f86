"""The network recorded for padded shapes and numbers of pictures, on the pretended accelerator."""

import copy
import logging
from collections.abc import Iterator
from weakref import ref

import pytest
import torch
from torch import Tensor

from model import VARIANTS, EBSeg, TrainingClasses
from model.network.build import build
from model.network.predictions import MaskPredictions
from model.network.table_cache import TableCache
from tests.golden.weights import picture
from tests.pretended import counted, pretended_device
from tests.pretended_graphs import PretendedGraph, pretended_graphs

SHAPE = (64, 96)
SIZES = [(60, 93), (64, 96), (33, 70)]


@pytest.fixture
def graphs() -> Iterator[type[PretendedGraph]]:
    with pretended_device(), pretended_graphs() as found:
        yield found


@pytest.fixture
def ebseg(graphs: type[PretendedGraph]) -> EBSeg:
    return build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=0).to("pretended")


def pictures(count: int) -> list[Tensor]:
    return [picture(*SIZES[i % len(SIZES)], (i + 1) / 9) for i in range(count)]


def largest_difference(found: list[MaskPredictions], wanted: list[MaskPredictions]) -> float:
    return max(
        float((a.tensors()[name] - b.tensors()[name]).abs().max().cpu())
        for a, b in zip(found, wanted, strict=True)
        for name in a.tensors()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_replayed_is_eager(dtype: torch.dtype, graphs: type[PretendedGraph]) -> None:
    """Bit for bit, for pictures of any size within the shape, and without a wait."""
    ebseg = build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=0).to_compute_dtype(dtype).to("pretended")
    wanted = {count: ebseg.predict_each(pictures(count), SHAPE) for count in (1, 2)}
    assert graphs.replays == []
    assert all(ebseg.record(SHAPE, count) for count in (1, 2))
    for count in (1, 2):
        with counted() as counts:
            found = ebseg.predict_each(pictures(count), SHAPE)
        assert counts.waits == []
        assert [one.image_size for one in found] == SIZES[:count]
        assert largest_difference(found, wanted[count]) == 0
    assert graphs.replays == [1, 2]


def test_any_number_is_made_of_what_is_recorded(ebseg: EBSeg, graphs: type[PretendedGraph]) -> None:
    for count in (1, 2, 4):
        ebseg.record(SHAPE, count)
    assert ebseg.graphs.counts(SHAPE) == [4, 2, 1]
    alone = [ebseg.predict_each([one], SHAPE)[0] for one in pictures(7)]
    graphs.replays.clear()
    together = ebseg.predict_each(pictures(7), SHAPE)
    assert graphs.replays == [4, 2, 1]
    scale = max(float(tensor.abs().max().cpu()) for one in alone for tensor in one.tensors().values())
    assert largest_difference(together, alone) <= 2e-5 * scale


def test_without_the_small_ones_the_rest_runs_eagerly(ebseg: EBSeg, graphs: type[PretendedGraph]) -> None:
    ebseg.record(SHAPE, 2)
    assert len(ebseg.predict_each(pictures(3), SHAPE)) == 3
    assert graphs.replays == [2]
    ebseg.predict_each([picture(32, 32, 0.5)])
    assert graphs.replays == [2]


def test_a_replay_leaves_what_the_one_before_gave(ebseg: EBSeg) -> None:
    ebseg.record(SHAPE, 1)
    first, second = pictures(2)
    (before,) = ebseg.predict_each([first], SHAPE)
    kept = before.mask_logits.cpu()
    (after,) = ebseg.predict_each([second], SHAPE)
    assert torch.equal(before.mask_logits.cpu(), kept)
    assert not torch.equal(after.mask_logits.cpu(), kept)


def test_tables_that_a_recording_reads_live_as_long_as_it(ebseg: EBSeg) -> None:
    caches = [module for module in ebseg.modules() if isinstance(module, TableCache)]
    ebseg.record(SHAPE, 1)
    tensors = [table for cache in caches for table in cache.tables() if isinstance(table, Tensor)]
    assert len(tensors) > 2
    watched = [ref(tensor.host) for tensor in tensors]  # type: ignore[attr-defined]
    del tensors
    for cache in caches:
        cache.forget()
    assert all(one() is not None for one in watched)
    ebseg.graphs.forget()
    assert all(one() is None for one in watched)


def test_what_ends_recordings(ebseg: EBSeg) -> None:
    ebseg.record(SHAPE, 1)
    assert len(copy.deepcopy(ebseg).graphs) == 0
    assert len(ebseg.graphs) == 1
    ebseg.load_state_dict(ebseg.state_dict())
    assert len(ebseg.graphs) == 0
    ebseg.record(SHAPE, 1)
    ebseg.to(torch.float32)
    assert len(ebseg.graphs) == 0


def test_a_network_that_waits_runs_eagerly(
    ebseg: EBSeg, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    normalised = EBSeg._normalised

    def waiting(self: EBSeg, images: Tensor, *rest: object) -> Tensor:
        images.max().item()
        return normalised(self, images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EBSeg, "_normalised", waiting)
    with caplog.at_level(logging.WARNING):
        assert not ebseg.record(SHAPE, 2)
    assert "predict of 2 images of 64 x 96 cannot be recorded, and runs eagerly" in caplog.text
    assert len(ebseg.graphs) == 0
    assert len(ebseg.predict_each(pictures(2), SHAPE)) == 2


def test_a_cpu_records_nothing() -> None:
    ebseg = build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=0)
    assert not ebseg.record(SHAPE, 1)
    assert len(ebseg.graphs) == 0
