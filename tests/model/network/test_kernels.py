"""Each choice for a kind of device against the others: all compute the same."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import VARIANTS, EBSeg, Segmenter, TrainingClasses, Vocabulary
from model.network import kernels
from model.network.build import build
from model.network.kernels import ByDevice
from tests.golden.weights import picture

CHOICES = {name: value for name, value in vars(kernels).items() if isinstance(value, ByDevice)}
CPU, OTHERS = torch.device("cpu"), ("cuda", "meta", "xpu")
VOCABULARY = Vocabulary.of([f"thing {i}" for i in range(30)])


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def compute_as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU computes by the other column from here on."""
    monkeypatch.setattr(ByDevice, "on", lambda choice, device: choice.cuda)


def test_every_device_has_a_column() -> None:
    assert len(CHOICES) >= 8
    for choice in CHOICES.values():
        assert choice.on(CPU) == choice.cpu
        assert all(choice.on(torch.device(device)) == choice.cuda for device in OTHERS)


@pytest.mark.parametrize("variant", ["tiny", "tiny-swin-t"])
def test_the_other_column_gives_the_same_labels(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=0)
    pictures = torch.stack([picture(70, 93, phase) for phase in (0.25, 0.75)])
    wanted, maps = ebseg.predict(pictures), label_maps(ebseg, pictures)
    compute_as_on_cuda(monkeypatch)
    found = ebseg.predict(pictures)
    for name, tensor in wanted.tensors().items():
        assert (found.tensors()[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max()
    assert (label_maps(ebseg, pictures) == maps).mean() >= 0.999


def label_maps(ebseg: EBSeg, pictures: Tensor) -> NDArray[np.uint16]:
    """Larger than a tile in both directions."""
    predictions, segmenter = ebseg.predict(pictures), Segmenter(ebseg)
    return np.stack(
        [
            segmenter.label_map(predictions, VOCABULARY, output_size=(150, 300), index=i).labels
            for i in range(len(pictures))
        ]
    )


def grid_inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys and values of 4 x 5 tokens, three heads, two pictures; biases by row and by column."""
    q, k, v = (noise(2, 3, 20, 8, seed=i, dtype=dtype) for i in range(3))
    return q, k, v, noise(2, 3, 4, 5, 4, seed=3, dtype=dtype), noise(2, 3, 4, 5, 5, seed=4, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention_on_a_grid(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the formula: logits get a bias for the key's row and one for its column."""
    inputs = grid_inputs(dtype)
    q, k, v, by_row, by_column = (x.double() for x in inputs)
    bias = by_row[..., None] + by_column[..., None, :]
    wanted = (q @ k.transpose(-2, -1) * 8**-0.5 + bias.flatten(4).flatten(2, 3)).softmax(-1) @ v
    tolerance = {torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 4e-2}[dtype]
    on_cpu = kernels.attention_on_grid(*inputs)
    compute_as_on_cuda(monkeypatch)
    for found in (on_cpu, kernels.attention_on_grid(*inputs)):
        assert found.dtype == dtype
        assert (found.double() - wanted).abs().max() <= tolerance


def test_a_gpus_grid_attention_has_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that flash attention serves: equal channels of queries, keys and values, a multiple of eight."""
    seen: list[tuple[list[int], dict[str, Any]]] = []
    original: Any = torch.nn.functional.scaled_dot_product_attention

    def watched(*tensors: Tensor, **others: Any) -> Tensor:
        seen.append(([tensor.shape[-1] for tensor in tensors], others))
        attended: Tensor = original(*tensors, **others)
        return attended

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    compute_as_on_cuda(monkeypatch)
    together = kernels.attention_on_grid(*grid_inputs())
    assert seen == [([24, 24, 24], {"scale": 1.0})]  # 8 + 4 + 5 channels
    monkeypatch.setattr(kernels, "FLASH_CHANNELS", 16)  # as with pictures so long that it is too many
    assert (kernels.attention_on_grid(*grid_inputs()) - together).abs().max() <= 1e-6
    assert "attn_mask" in seen[1][1]


@pytest.mark.parametrize("most", [1, 2 * 20 * 20, 4 * 20 * 20])
def test_heads_may_take_turns(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on the logits bounds memory, and changes no number."""
    together = kernels.attention_on_grid(*grid_inputs())
    monkeypatch.setattr(kernels, "LOGITS_AT_ONCE", ByDevice(cpu=most, cuda=most))
    assert (kernels.attention_on_grid(*grid_inputs()) - together).abs().max() <= 1e-6


def test_half_precision_attends_by_products_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fused: list[torch.dtype] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def counted(q: Tensor, *others: Any) -> Tensor:
        fused.append(q.dtype)
        return original(q, *others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        kernels.attention(*(noise(1, 2, 5, 4, seed=i, dtype=dtype) for i in range(3)))
    assert fused == [torch.float32, torch.float64]


def test_contenders_alone() -> None:
    """Whoever is left out would not have won."""
    masks, probabilities = noise(12, 40, seed=0).sigmoid(), (4 * noise(12, 60, seed=1)).softmax(1)
    masks[:, 20:] *= 0.9
    wanted = (masks.T @ probabilities).argmax(1)
    some = kernels.contenders(masks, probabilities)
    assert set(wanted.tolist()) <= set(some.tolist())
    _, winner = kernels.best_class(masks.T @ probabilities[:, some])
    assert torch.equal(some[winner], wanted)


def test_best_class() -> None:
    scores = noise(50, 7, seed=0)
    scores[3] = 1.0  # the first of equals wins
    best, winner = kernels.best_class(scores)
    assert torch.equal(best, scores.amax(1))
    assert torch.equal(winner, scores.argmax(1))
    assert winner[3] == 0


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_smallest(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(50, 7, seed=0)
    wanted = values.argsort(1)[:, :count].sort(1).values
    on_cpu = kernels.smallest(values, count)
    compute_as_on_cuda(monkeypatch)
    for places in (on_cpu, kernels.smallest(values, count)):
        assert torch.equal(places.sort(1).values, wanted)
