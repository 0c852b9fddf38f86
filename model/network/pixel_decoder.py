"""Pixel decoder: deformable attention over strides 32, 16, 8, then one pyramid step to stride 4.

Always float32, whatever the rest runs in: deformable attention loses accuracy in half precision.
Shape suffixes: B pictures, N tokens of all levels, C channels, H and W rows and columns.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.deformable_attention import (
    DeformableAttention,
    SamplingGeometry,
    sampling_geometry,
)
from model.network.fusion import Level
from model.network.kernels import HALF, convolve_3x3, pointwise
from model.network.layers import SineEncoding, at_least_float32, project_resized, resize
from model.network.table_cache import TableCache


class EncoderLayer(nn.Module):
    """Deformable attention and feed-forward, each followed by its norm."""

    def __init__(self, *, channels: int, levels: int, heads: int, points: int, feed_forward: int):
        super().__init__()
        self.attention = DeformableAttention(channels=channels, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, feed_forward)
        self.linear2 = nn.Linear(feed_forward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x_BNC: Tensor, position_NC: Tensor, geometry: SamplingGeometry) -> Tensor:
        """Refines the tokens of all levels, [B, N, C] -> [B, N, C]."""
        x = self.norm1(x_BNC + self.attention(x_BNC + position_NC, x_BNC, geometry))
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x), inplace=True)))
        return out


class NormedConv(nn.Module):
    """A convolution and its group norm."""

    def __init__(self, width: int, channels: int, *, kernel: int = 1, bias: bool, groups: int):
        super().__init__()
        self.conv = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=bias)
        self.norm = nn.GroupNorm(groups, channels)


class PixelDecoder(nn.Module):
    """Fused levels in, three refined levels and per-pixel mask features out.

    Args:
        widths: channels of the levels of strides 4, 8, 16, 32.
        channels: of everything inside and of the outputs.
        layers, heads, points, feed_forward, norm_groups: see `PixelDecoderConfig`.
        encoding: of the tokens' places, for so many channels.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int, int, int],
        channels: int,
        layers: int,
        heads: int,
        points: int,
        feed_forward: int,
        norm_groups: int,
        encoding: SineEncoding,
    ):
        super().__init__()
        self.heads, self.points = heads, points
        self.encoding = encoding
        self._geometry = TableCache()
        self.input_projections = nn.ModuleList(
            NormedConv(width, channels, bias=True, groups=norm_groups) for width in reversed(widths[1:])
        )
        self.level_embed = nn.Parameter(torch.empty(len(widths) - 1, channels))
        self.layers = nn.ModuleList(
            EncoderLayer(
                channels=channels,
                levels=len(widths) - 1,
                heads=heads,
                points=points,
                feed_forward=feed_forward,
            )
            for _ in range(layers)
        )
        self.lateral = NormedConv(widths[0], channels, bias=False, groups=norm_groups)
        self.output = NormedConv(channels, channels, kernel=3, bias=False, groups=norm_groups)
        self.mask_features = nn.Conv2d(channels, channels, 1)

    def forward(self, levels: list[Level], padded: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        """Refines the levels.

        Args:
            levels: of strides 4, 8, 16, 32.
            padded: rows and columns of the padded picture, in pixels.

        Returns:
            Maps of strides 32, 16, 8, and the mask features of stride 4; [B, C, H, W] each.
        """
        finest, *rest = levels
        coarse_first = rest[::-1]
        sizes = tuple((padded[0] // level.stride, padded[1] // level.stride) for level in coarse_first)
        tokens, positions = [], []
        projection: Any
        for i, (level, projection) in enumerate(zip(coarse_first, self.input_projections, strict=True)):
            x = _project(projection, level, sizes[i])
            tokens.append(x.flatten(2).transpose(1, 2))
            positions.append(self.encoding(sizes[i], x.device) + self.level_embed[i])
        x_BNC, position_NC = torch.cat(tokens, 1), torch.cat(positions)
        device = x_BNC.device
        geometry = self._geometry.get(
            sizes, lambda: sampling_geometry(sizes, self.heads, self.points, device)
        )
        for layer in self.layers:
            x_BNC = layer(x_BNC, position_NC, geometry)
        split = x_BNC.split([rows * columns for rows, columns in sizes], 1)
        maps = [x.transpose(1, 2).unflatten(2, size) for x, size in zip(split, sizes, strict=True)]

        size = (padded[0] // finest.stride, padded[1] // finest.stride)
        y = _project(self.lateral, finest, size) + resize(maps[-1], size)
        y = convolve_3x3(self.output.conv, y, exact=finest.backbone.dtype not in HALF)
        y = F.relu(self.output.norm(y), inplace=True)
        return maps, pointwise(self.mask_features, y, self.mask_features.bias)


def _project(projection: NormedConv, level: Level, size: tuple[int, int]) -> Tensor:
    """Projects the sum of a level's maps to the decoder's channels at `size`, and normalises it."""
    x = project_resized(projection.conv, at_least_float32(level.backbone), size)
    if level.clip is not None:
        x = x + project_resized(projection.conv, at_least_float32(level.clip), size)
    if projection.conv.bias is not None:
        x = x + projection.conv.bias[:, None, None]
    out: Tensor = projection.norm(x)
    return out
