"""Small parts that several components share.

Shape suffixes: B pictures, N tokens, C channels, D channels of a head, H and W rows and columns.
"""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.kernels import pointwise
from model.network.table_cache import SIZES_KEPT, TableCache

Block = Any  # a transformer block of open_clip or segment_anything, which carry no types
LEVELS = 3  # of the pixel decoder, strides 32, 16 and 8; each has an encoding of its own


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


def round_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The least multiples that hold so many rows and columns."""
    return size[0] + -size[0] % multiple, size[1] + -size[1] % multiple


def pad_grid(x_BHWC: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros below and at the right of a grid of tokens, [B, h, w, C] -> [B, H, W, C]."""
    return F.pad(x_BHWC, (0, 0, 0, size[1] - x_BHWC.shape[2], 0, size[0] - x_BHWC.shape[1]))


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


def resize(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres aligned, no antialiasing: how the official code resizes maps."""
    if x_BCHW.shape[-2:] == size:
        return x_BCHW
    return F.interpolate(x_BCHW, size=size, mode="bilinear", align_corners=False)


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


def sine_encoding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Two-dimensional sine position encoding, [height * width, channels], float32.

    The first half of the channels encodes the row, the second the column; positions are scaled to
    (0, 2 pi] and the temperature is 10,000 (DETR's encoding, as Mask2Former uses it).
    """
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


class SineEncoding(nn.Module):
    """`sine_encoding` for so many channels, kept by size; the two decoders share one.

    Args:
        channels: of the tokens.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self._kept = TableCache(most=LEVELS * SIZES_KEPT)

    def forward(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Of a map of this many rows and columns, [rows * columns, channels], float32."""
        return self._kept.get(size, lambda: sine_encoding(*size, self.channels, device))
