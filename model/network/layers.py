"""Small parts that several components share.

Shape suffixes: B pictures, N tokens, C channels, D channels of a head, H and W rows and columns.
"""

import functools
import itertools
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = Any  # a transformer block of open_clip or segment_anything, which carry no types
SHAPES_KEPT = 32  # picture shapes whose tables are kept


class MLP(nn.Module):
    """Linear layers with ReLU between them; [..., widths[0]] -> [..., widths[-1]]."""

    def __init__(self, widths: list[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[..., widths[0]] -> [..., widths[-1]]."""
        out: Tensor = self.layers[-1](self.hidden(x))
        return out

    def hidden(self, x: Tensor) -> Tensor:
        """All but the last layer."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x), inplace=True)
        return x


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """[B, N, heads * D] -> [B, heads, N, D]."""
    return x_BNC.view(*x_BNC.shape[:-1], heads, -1).transpose(1, 2)


def join_heads(x_BhND: Tensor) -> Tensor:
    """[B, heads, N, D] -> [B, N, heads * D]."""
    return x_BhND.transpose(1, 2).flatten(2)


def split_windows(x_BHWC: Tensor, side: int) -> Tensor:
    """[B, H, W, C] -> [B * windows, side, side, C]; H and W are multiples of the side."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side, side, channels)


def join_windows(windows: Tensor, size: tuple[int, int]) -> Tensor:
    """The opposite of `split_windows`, for a padded grid of `size`."""
    side, channels = windows.shape[1], windows.shape[3]
    down, across = size[0] // side, size[1] // side
    x = windows.reshape(-1, down, across, side, side, channels)
    return x.transpose(2, 3).reshape(-1, size[0], size[1], channels)


def prefers_products(x: Tensor) -> bool:
    """Whether attention is faster as plain matrix products: in half precision on a CPU.

    The fused kernel there converts to float32 inside, and so leaves the fast units.
    """
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float16)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention, [B, heads, N, D]."""
    if prefers_products(q):
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def resize(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres aligned, no antialiasing: how the official code resizes maps."""
    if x_BCHW.shape[-2:] == size:
        return x_BCHW
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False)


def embed_patches(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """Patches to tokens, [B, C, H, W] -> [B, h, w, channels]: a convolution that steps by its own kernel.

    It is one matrix product, and as such rounds less than the convolution kernels do; on a GPU those may
    compute in TF32 where products do not. An edge that does not fill a patch is lost.
    """
    down, across = conv.kernel_size
    height, width = x_BCHW.shape[-2] // down, x_BCHW.shape[-1] // across
    x = x_BCHW[..., : height * down, : width * across]
    patches = x.unflatten(3, (width, across)).unflatten(2, (height, down))  # [B, C, h, down, w, across]
    return F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3), conv.weight.flatten(1), conv.bias)


def pointwise(conv: nn.Conv2d, x_BCHW: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution as a matrix product, which rounds less than the convolution kernels do."""
    out = F.linear(x_BCHW.permute(0, 2, 3, 1), conv.weight.flatten(1), bias)
    return out.permute(0, 3, 1, 2)


def convolve_3x3(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """A 3x3 convolution without bias, padded with zeros, as nine matrix products on a CPU.

    The CPU's convolution kernels round four times as much, which was most of the noise in the mask
    logits, and a logit that rounding carries over its threshold changes what a query sees. With two
    columns of padding between rows, each of the nine shifts is a slice of one flat map: nothing is
    copied.
    """
    if x_BCHW.device.type != "cpu":
        return F.conv2d(x_BCHW, conv.weight, padding=1)
    batch, channels, height, width = x_BCHW.shape
    across = width + 2
    # one more row below, so that the last shift does not run over the end
    padded = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 2)).flatten(1, 2)
    shifts = [
        padded[:, y * across + x : y * across + x + height * across] for y in range(3) for x in range(3)
    ]
    weights = conv.weight.permute(2, 3, 1, 0).reshape(9, channels, -1)
    out = shifts[0] @ weights[0]
    for shift, weight in zip(shifts[1:], weights[1:], strict=True):
        out.baddbmm_(shift, weight.expand(batch, -1, -1))
    return out.view(batch, height, across, -1)[:, :, :width].permute(0, 3, 1, 2)


def project_resized(projection: nn.Conv2d, x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """A 1x1 convolution without its bias, and a resize, in the cheaper order.

    Both are linear and act on other axes, so they commute up to rounding: enlarged maps are projected
    before, shrunk ones after.
    """
    grows = size[0] * size[1] > x_BCHW.shape[-2] * x_BCHW.shape[-1]
    if grows:
        return resize(pointwise(projection, x_BCHW, None), size)
    return pointwise(projection, resize(x_BCHW, size), None)


def resize_table(table_HWC: Tensor, size: tuple[int, int]) -> Tensor:
    """Position table resized bicubically, [H, W, C] -> [size[0], size[1], C], at least float32 inside."""
    if table_HWC.shape[:2] == size:
        return table_HWC
    chw = at_least_float32(table_HWC.permute(2, 0, 1)[None])
    resized = F.interpolate(chw, size=size, mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).to(table_HWC.dtype)


class ShapeCache:
    """Tensors derived from a parameter for a picture shape, kept while the parameter stays as it is.

    Only inference keeps them: under autograd they are computed each time, so gradients flow.

    Args:
        per_shape: tables that one shape needs.
    """

    def __init__(self, per_shape: int = 1) -> None:
        self._most = per_shape * SHAPES_KEPT
        self._tables: OrderedDict[Hashable, tuple[_State, Tensor]] = OrderedDict()

    def get(self, key: Hashable, parameter: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The table of `key`, made by `compute` when it is new or `parameter` has changed."""
        if torch.is_grad_enabled():
            return compute()
        known = self._tables.get(key)
        if known is None or not known[0].is_of(parameter):
            known = (_State(parameter), compute())
            self._tables[key] = known
        self._tables.move_to_end(key)
        if len(self._tables) > self._most:
            self._tables.popitem(last=False)
        return known[1]


class _State:
    """Which tensor it was, where its values lay, and how often they had been written."""

    def __init__(self, parameter: Tensor) -> None:
        self._tensor = weakref.ref(parameter)
        self._values = _values_of(parameter)

    def is_of(self, parameter: Tensor) -> bool:
        return self._tensor() is parameter and self._values == _values_of(parameter)


def _values_of(parameter: Tensor) -> tuple[int, int]:
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version


@functools.lru_cache(maxsize=4 * SHAPES_KEPT)
def sine_encoding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Two-dimensional sine position encoding, [height * width, channels], float32.

    The first half of the channels encodes the row, the second the column; positions are scaled to
    (0, 2 pi] and the temperature is 10,000 (DETR's encoding, as Mask2Former uses it).
    """
    with torch.inference_mode(False), torch.no_grad():
        half = channels // 2
        exponent = 2 * torch.div(torch.arange(half, device=device), 2, rounding_mode="floor") / half
        frequency = 10_000.0**exponent
        rows = torch.arange(1, height + 1, device=device) / (height + 1e-6) * 2 * math.pi
        columns = torch.arange(1, width + 1, device=device) / (width + 1e-6) * 2 * math.pi

        def waves(position: Tensor) -> Tensor:
            phase = position[:, None] / frequency
            return torch.stack([phase[:, 0::2].sin(), phase[:, 1::2].cos()], -1).flatten(1)

        y = waves(rows)[:, None].expand(height, width, half)
        x = waves(columns)[None].expand(height, width, half)
        return torch.cat([y, x], -1).flatten(0, 1).contiguous()
