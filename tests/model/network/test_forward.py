"""The network as one graph: what `torch.export` and `torch.compile` make of `forward` computes the same."""

import copy

import pytest
import torch
from torch import Tensor

from model import VARIANTS, EBSeg, TrainingClasses
from model.network.build import build
from tests.golden.weights import picture

SIZE = (70, 93)  # neither side is a multiple of anything
NAMES = ["mask_logits", "supervised", "mask_attention", "frozen"]
PHASES = (0.25, 0.75)  # of two pictures


@pytest.fixture(scope="module", params=["tiny", "tiny-swin-t"])
def ebseg(request: pytest.FixtureRequest) -> EBSeg:
    return build(VARIANTS[request.param], TrainingClasses.coco_stuff(), seed=0).requires_grad_(False)


def view(phase: float = PHASES[0]) -> Tensor:
    return picture(*SIZE, phase)[None]


def largest_difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


def test_predict_is_forward(ebseg: EBSeg) -> None:
    predictions = ebseg.predict(view())
    with torch.no_grad():
        outputs = ebseg(view())
    assert list(predictions.tensors()) == NAMES
    assert largest_difference(tuple(predictions.tensors().values()), outputs) == 0
    assert predictions.image_size == SIZE


def test_an_exported_program_computes_the_same_and_leaves_the_model_as_it_was(ebseg: EBSeg) -> None:
    before = {phase: ebseg.predict(view(phase)).tensors() for phase in PHASES}
    exported = torch.export.export(ebseg, (view(),)).module()
    for phase in PHASES:
        wanted = tuple(before[phase].values())
        with torch.no_grad():
            assert largest_difference(exported(view(phase)), wanted) == 0.0
        assert largest_difference(tuple(ebseg.predict(view(phase)).tensors().values()), wanted) == 0.0


def test_a_compiled_model_is_one_graph_and_computes_the_same(ebseg: EBSeg) -> None:
    compiled = torch.compile(copy.deepcopy(ebseg), fullgraph=True, backend="eager")
    for phase in PHASES:
        with torch.no_grad():
            assert largest_difference(compiled(view(phase)), ebseg(view(phase))) == 0.0
