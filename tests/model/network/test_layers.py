"""Faster forms of single layers against the plain ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.kernels import attention, convolve_3x3, pointwise
from model.network.layers import project_resized, resize


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (3, 4, 1, 1), (2, 4, 1, 9), (2, 4, 9, 1)])
def test_convolution_as_products(shape: tuple[int, ...]) -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False, dtype=torch.float64)
    x = noise(*shape).requires_grad_(True)
    found, wanted = convolve_3x3(conv, x), conv(x)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-12
    seen_by = noise(*wanted.shape, seed=1)
    leaves = [x, conv.weight]
    for a, b in zip(
        torch.autograd.grad((found * seen_by).sum(), leaves),
        torch.autograd.grad((wanted * seen_by).sum(), leaves),
        strict=True,
    ):
        assert (a - b).abs().max() <= 1e-12


def test_convolution_as_products_rounds_less() -> None:
    conv = nn.Conv2d(256, 32, 3, padding=1, bias=False)
    x = noise(1, 256, 24, 24, dtype=torch.float32)
    exact = F.conv2d(x.double(), conv.weight.double(), padding=1)

    def error(found: Tensor) -> float:
        return ((found - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()

    assert error(convolve_3x3(conv, x)) <= 4e-7


def test_pointwise_is_a_1x1_convolution() -> None:
    conv = nn.Conv2d(4, 6, 1, dtype=torch.float64)
    x = noise(2, 4, 3, 5)
    assert (pointwise(conv, x, conv.bias) - conv(x)).abs().max() <= 1e-12
    assert (pointwise(conv, x, None) - F.conv2d(x, conv.weight)).abs().max() <= 1e-12


@pytest.mark.parametrize("size", [(3, 5), (6, 10), (12, 20), (2, 3)])
def test_projecting_and_resizing_commute(size: tuple[int, int]) -> None:
    conv = nn.Conv2d(4, 6, 1, dtype=torch.float64)
    x = noise(2, 4, 3, 5)
    plain = F.conv2d(resize(x, size), conv.weight)
    assert (project_resized(conv, x, size) - plain).abs().max() <= 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_either_form(dtype: torch.dtype) -> None:
    q, k, v = (noise(2, 3, n, 8, seed=n, dtype=torch.float32).to(dtype) for n in (5, 7, 7))
    weights = (q.double() @ k.double().transpose(-2, -1) * 8**-0.5).softmax(-1)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    assert (attention(q, k, v).double() - weights @ v.double()).abs().max() <= tolerance
