"""Deformable attention against `grid_sample`, and the position encoding against a loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.deformable_attention import DeformableAttention, Sizes, sampling_geometry
from model.network.layers import project_resized, resize, resize_table, sine_encoding
from tests.model import plain

SIZES = ((2, 3), (4, 5), (7, 9))
EXACT = 3e-6  # float64, but for places of the tokens themselves, which are kept in float32


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention(
    reach: float, sizes: tuple[tuple[int, int], ...] = SIZES, channels: int = 8
) -> DeformableAttention:
    """Random weights; `reach` is how far the points lie from their token, in pixels."""
    module = DeformableAttention(channels=channels, levels=len(sizes), heads=2, points=3).double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(noise(*parameter.shape, seed=i) / channels**0.5)
        module.sampling_offsets.weight.mul_(reach)
        module.sampling_offsets.bias.mul_(reach)
    return module


def attended(module: DeformableAttention, query: Tensor, value: Tensor, sizes: Sizes) -> Tensor:
    at = sampling_geometry(sizes, module.heads, module.points, query.device)
    out: Tensor = module(query, value, at)
    return out


def slowly(
    module: DeformableAttention, query: Tensor, value: Tensor, sizes: tuple[tuple[int, int], ...] = SIZES
) -> Tensor:
    shape = (*query.shape[:2], module.heads, module.levels, module.points)
    offsets = module.sampling_offsets(query).view(*shape, 2)
    weights = module.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
    sampled = plain.deformed(module.value_proj(value), offsets, weights, list(sizes))
    out: Tensor = module.output_proj(sampled)
    return out


def tokens(sizes: tuple[tuple[int, int], ...] = SIZES) -> int:
    return sum(rows * columns for rows, columns in sizes)


@pytest.mark.parametrize("reach", [0.0, 0.7, 4.0, 1e3, 1e9])
@torch.no_grad()
def test_equals_grid_sample(reach: float) -> None:
    """From no offset at all, over points on and beyond the border, to points far outside."""
    module = attention(reach)
    query, value = noise(3, tokens(), 8, seed=20), noise(3, tokens(), 8, seed=21)
    found, wanted = attended(module, query, value, SIZES), slowly(module, query, value)
    assert (found - wanted).abs().max() <= EXACT


@torch.no_grad()
def test_equals_grid_sample_in_float32() -> None:
    module = attention(2.0)
    query, value = noise(2, tokens(), 8, seed=20), noise(2, tokens(), 8, seed=21)
    wanted = slowly(module, query, value)
    found = attended(module.float(), query.float(), value.float(), SIZES)
    assert (found - wanted).abs().max() <= 1e-5


@torch.no_grad()
def test_points_outside_read_zero() -> None:
    """All points far away: what is left is the bias of the output projection."""
    module = attention(0.0)
    module.sampling_offsets.bias.fill_(-50.0)
    value = noise(1, tokens(), 8)
    found = attended(module, value, value, SIZES)
    assert torch.equal(found, module.output_proj.bias.expand_as(found))


@torch.no_grad()
def test_own_place_of_a_token() -> None:
    """On a single level, without offsets, a token reads itself."""
    module = attention(0.0, sizes=((3, 4),))
    module.sampling_offsets.bias.zero_()
    query, value = noise(2, 12, 8, seed=1), noise(2, 12, 8, seed=2)
    wanted = module.output_proj(module.value_proj(value))
    assert (attended(module, query, value, ((3, 4),)) - wanted).abs().max() <= EXACT


@torch.no_grad()
def test_pictures_of_a_batch_stay_apart() -> None:
    module = attention(1.0)
    query, value = noise(3, tokens(), 8, seed=1), noise(3, tokens(), 8, seed=2)
    together = attended(module, query, value, SIZES)
    for i in range(3):
        alone = attended(module, query[i : i + 1], value[i : i + 1], SIZES)
        assert (together[i : i + 1] - alone).abs().max() <= 1e-12


@pytest.mark.parametrize("reach", [0.7, 4.0])
def test_gradients_equal_those_of_grid_sample(reach: float) -> None:
    module = attention(reach)
    query, value = noise(2, tokens(), 8, seed=20), noise(2, tokens(), 8, seed=21)
    direction = noise(2, tokens(), 8, seed=22)

    def gradients(out: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((out * direction).sum(), [query, value, *module.parameters()]))

    query.requires_grad_(True)
    value.requires_grad_(True)
    found, wanted = gradients(attended(module, query, value, SIZES)), gradients(slowly(module, query, value))
    for a, b in zip(found, wanted, strict=True):
        assert b.abs().max() > 0
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_gradients_equal_differences() -> None:
    sizes = ((2, 2), (1, 3))
    module = attention(0.6, sizes=sizes, channels=4)
    query = noise(1, tokens(sizes), 4, seed=20).requires_grad_(True)
    value = noise(1, tokens(sizes), 4, seed=21).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda q, v: attended(module, q, v, sizes), (query, value))


# --- encodings and resizes


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 1, 4), (3, 5, 8), (4, 2, 64)])
def test_sine_encoding_number_by_number(height: int, width: int, channels: int) -> None:
    found = sine_encoding(height, width, channels, torch.device("cpu"))
    assert found.shape == (height * width, channels)
    assert (found - plain.sine(height, width, channels)).abs().max() <= 1e-6


def test_sine_encoding_by_hand() -> None:
    """The last row is at 2 pi; in the first pair of channels waves turn once over the picture."""
    found = sine_encoding(4, 2, 8, torch.device("cpu")).view(4, 2, 8)
    assert found[0, 0, 0].item() == pytest.approx(math.sin(math.pi / 2), abs=1e-5)
    assert found[1, 1, :2].tolist() == pytest.approx([math.sin(math.pi), math.cos(math.pi)], abs=1e-5)
    assert found[0, 0, 4:6].tolist() == pytest.approx([math.sin(math.pi), math.cos(math.pi)], abs=1e-5)
    assert found[3, 1, 2].item() == pytest.approx(math.sin(2 * math.pi / 100), abs=1e-5)


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (12, 16), (5, 3), (2, 17)])
def test_projection_commutes_with_resizing(size: tuple[int, int]) -> None:
    conv = torch.nn.Conv2d(6, 3, 1).double()
    x = noise(2, 6, 6, 8)
    wanted = F.conv2d(F.interpolate(x, size=size, mode="bilinear", align_corners=False), conv.weight)
    assert (project_resized(conv, x, size) - wanted).abs().max() <= 1e-12


def test_resizing_to_the_same_size_is_nothing() -> None:
    x = noise(1, 2, 5, 7)
    assert torch.equal(resize(x, (5, 7)), x)
    assert torch.equal(resize_table(x[0].permute(1, 2, 0), (5, 7)), x[0].permute(1, 2, 0))


def test_position_table_keeps_its_type_and_constants() -> None:
    table = torch.full((4, 4, 3), 2.5, dtype=torch.bfloat16)
    resized = resize_table(table, (7, 3))
    assert resized.dtype == torch.bfloat16
    assert resized.shape == (7, 3, 3)
    assert torch.equal(resized, torch.full((7, 3, 3), 2.5, dtype=torch.bfloat16))
