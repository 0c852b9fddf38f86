"""Position tables and encodings are made once per picture shape, and anew when their weights change."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model import EBSeg, MaskPredictions
from model.network.table_cache import TableCache
from tests.golden.weights import picture

NAMES = ("mask_logits", "supervised", "mask_attention", "frozen")
SIZES = ((70, 93), (96, 64))


@pytest.fixture
def ebseg(uneven: EBSeg) -> EBSeg:
    """A model that has seen the shape of `view` in inference, so its tables are kept."""
    own = copy.deepcopy(uneven)
    own.predict(view())
    return own


def view(size: tuple[int, int] = SIZES[0]) -> Tensor:
    return picture(*size, 0.25)[None]


def fresh(ebseg: EBSeg, uneven: EBSeg) -> EBSeg:
    """The same weights in a model that keeps no tables yet."""
    other = copy.deepcopy(uneven)
    assert kept(other) == 0
    other.load_state_dict(ebseg.state_dict())
    return other


def kept(ebseg: EBSeg) -> int:
    """Tables that the model keeps now."""
    return sum(len(module) for module in ebseg.modules() if isinstance(module, TableCache))


def difference(a: MaskPredictions, b: MaskPredictions) -> float:
    """Largest, relative to the largest value of `b`."""
    return max(
        float((getattr(a, name) - getattr(b, name)).abs().max() / getattr(b, name).abs().max())
        for name in NAMES
    )


def test_second_call_is_the_first_one(ebseg: EBSeg) -> None:
    first = [ebseg.predict(view(size)) for size in SIZES]
    for size, wanted in zip(SIZES, first, strict=True):
        assert difference(ebseg.predict(view(size)), wanted) == 0


@pytest.fixture
def resized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tables resized from now on: "bicubic" for positions, "linear" for relative positions."""
    modes: list[str] = []
    original = torch.nn.functional.interpolate

    def counted(*args: Any, **options: Any) -> Tensor:
        if options.get("mode") in ("bicubic", "linear"):
            modes.append(options["mode"])
        return original(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", counted)
    return modes


def test_a_shape_is_computed_once(ebseg: EBSeg, resized: list[str]) -> None:
    ebseg.predict(view())
    assert resized == []
    ebseg.predict(view(SIZES[1]))
    assert set(resized) == {"bicubic", "linear"}


def test_many_shapes_in_turn(ebseg: EBSeg, resized: list[str]) -> None:
    """A service sees a handful of shapes over and over; each has tables in every block."""
    sizes = [(32 * (1 + i), 32 * (8 - i)) for i in range(8)]
    for size in sizes:
        ebseg.predict(view(size))
    resized.clear()
    for size in sizes:
        ebseg.predict(view(size))
    assert resized == []


def step(ebseg: EBSeg) -> None:
    """One step of training."""
    optimizer = torch.optim.SGD([p for p in ebseg.parameters() if p.requires_grad], lr=0.1)
    for parameter in ebseg.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()


def other_tables(ebseg: EBSeg) -> dict[str, Tensor]:
    """A state with other position tables, in memory of its own."""
    return {
        name: tensor * 1.5 if "pos" in name else tensor.clone() for name, tensor in ebseg.state_dict().items()
    }


def load(ebseg: EBSeg) -> None:
    ebseg.load_state_dict(other_tables(ebseg))


def assign(ebseg: EBSeg) -> None:
    ebseg.load_state_dict(other_tables(ebseg), assign=True)


def assign_twice(ebseg: EBSeg) -> None:
    """The second set may lie in memory where the first weights lay."""
    assign(ebseg)
    assign(ebseg)


@torch.no_grad()
def in_place(ebseg: EBSeg) -> None:
    ebseg.get_parameter("backbone.pos_embed").mul_(1.5)
    ebseg.clip_image.positional_embedding.mul_(1.5)


@pytest.mark.parametrize("change", [step, load, assign, assign_twice, in_place])
def test_new_weights_make_new_tables(change: Callable[[EBSeg], None], ebseg: EBSeg, uneven: EBSeg) -> None:
    before = ebseg.predict(view())
    change(ebseg)
    after = ebseg.predict(view())
    assert difference(after, before) > 1e-3
    assert difference(after, fresh(ebseg, uneven).predict(view())) <= 1e-6


def test_one_table_alone(ebseg: EBSeg, uneven: EBSeg) -> None:
    """A relative position table is a table of its own."""
    before = ebseg.predict(view())
    with torch.no_grad():
        ebseg.get_parameter("backbone.blocks.1.attn.rel_pos_w").mul_(-2.0)
    after = ebseg.predict(view())
    assert difference(after, before) > 1e-3
    assert difference(after, fresh(ebseg, uneven).predict(view())) <= 1e-6


def test_half_precision_makes_new_tables(ebseg: EBSeg) -> None:
    before = ebseg.predict(view())
    ebseg.to_compute_dtype(torch.bfloat16)
    half = ebseg.predict(view())
    assert difference(half, before) > 1e-4
    assert all(getattr(half, name).dtype == torch.float32 for name in NAMES)


def test_under_autograd_nothing_is_kept(ebseg: EBSeg) -> None:
    """Else the second step would go through the graph of the first, which is gone."""
    for _ in range(2):
        ebseg.zero_grad()
        sum(stage.mask_logits.sum() for stage in ebseg.stages(view())).backward()  # type: ignore[union-attr]
        for name in ("backbone.pos_embed", "clip_image.positional_embedding"):
            gradient = ebseg.get_parameter(name).grad
            assert gradient is not None
            assert gradient.abs().max() > 0


def test_inference_after_training_and_training_after_inference(ebseg: EBSeg, uneven: EBSeg) -> None:
    """Tables made in inference mode are of no use to autograd, and must not reach it."""
    with torch.inference_mode():
        ebseg.stages(view())
    ebseg.stages(view())[-1].mask_logits.sum().backward()
    step(ebseg)
    assert difference(ebseg.predict(view()), fresh(ebseg, uneven).predict(view())) <= 1e-6
