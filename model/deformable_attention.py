"""Multi-scale deformable attention (Deformable DETR), in plain PyTorch.

Each query reads, at each level, a few points around its own place; the points and their weights are
linear functions of the query. Shape suffixes: B pictures, N tokens of all levels, h heads, L levels,
P points, C channels, D channels of a head.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = tuple[tuple[int, int], ...]  # (rows, columns) of each level


class DeformableAttention(nn.Module):
    """One layer's attention; every token of every level is a query."""

    def __init__(self, *, channels: int, levels: int, heads: int, points: int):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)

    def forward(self, query_BNC: Tensor, value_BNC: Tensor, sizes: Sizes) -> Tensor:
        """Returns [B, N, C].

        Args:
            query_BNC: tokens with their position encoding.
            value_BNC: tokens without it.
            sizes: of the levels, in the order of the tokens.
        """
        batch, tokens, _ = query_BNC.shape
        shape = (batch, tokens, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query_BNC).view(*shape, 2)
        weights = self.attention_weights(query_BNC).view(*shape[:3], -1).softmax(-1).view(shape)
        places = reference_pixels(sizes, query_BNC.device)[:, None, :, None] + offsets
        sampled = sample(self.value_proj(value_BNC), places, weights, sizes)
        out: Tensor = self.output_proj(sampled)
        return out


@functools.lru_cache(maxsize=64)
def reference_pixels(sizes: Sizes, device: torch.device) -> Tensor:
    """Each token's own place on each level in pixels, as (x, y), [N, L, 2].

    A token at the centre of its cell, in 0..1, is at `centre * size - 0.5` pixels of a level: the
    convention of grid sampling without aligned corners.
    """
    with torch.inference_mode(False), torch.no_grad():
        centres = []
        for rows, columns in sizes:
            y = (torch.arange(rows, device=device) + 0.5) / rows
            x = (torch.arange(columns, device=device) + 0.5) / columns
            centres.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1))
        extent = torch.tensor([[columns, rows] for rows, columns in sizes], device=device)
        return torch.cat(centres)[:, None] * extent - 0.5


@functools.lru_cache(maxsize=64)
def _level_geometry(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, rows and first token of each level, shaped to broadcast over points, [L, 1] each."""
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.tensor([size[0] for size in sizes], device=device)
        columns = torch.tensor([size[1] for size in sizes], device=device)
        start = (rows * columns).cumsum(0) - rows * columns
        return columns[:, None], rows[:, None], start[:, None]


def sample(value_BNC: Tensor, places_BNhLP2: Tensor, weights_BNhLP: Tensor, sizes: Sizes) -> Tensor:
    """Weighted sum of bilinear samples; outside the level everything is zero.

    The four corners of a sample become four rows of a flat value table with their bilinear weights, so
    one `embedding_bag` gathers and adds all levels and points of a query at once.

    Args:
        value_BNC: values of all tokens, heads side by side in the channels.
        places_BNhLP2: pixels (x, y) of the samples on their level.
        weights_BNhLP: attention weights, one in sum over levels and points.

    Returns:
        [B, N, C].
    """
    batch, tokens, heads = places_BNhLP2.shape[:3]
    columns, rows, start = _level_geometry(sizes, value_BNC.device)
    floor = places_BNhLP2.detach().floor()
    x_part, y_part = (places_BNhLP2 - floor).unbind(-1)
    x0, y0 = floor.long().unbind(-1)
    first = torch.arange(batch, device=value_BNC.device).view(-1, 1, 1, 1, 1) * tokens + start
    head = torch.arange(heads, device=value_BNC.device)[:, None, None]
    along_x = ((x0, (1 - x_part)), (x0 + 1, x_part))
    along_y = ((y0, (1 - y_part) * weights_BNhLP), (y0 + 1, y_part * weights_BNhLP))
    inside_x = [(x >= 0) & (x < columns) for x, _ in along_x]
    indices, factors = [], []
    for y, y_weight in along_y:
        inside_y = (y >= 0) & (y < rows)
        row = first + y.clamp(min=0).minimum(rows - 1) * columns
        for (x, x_weight), inside in zip(along_x, inside_x, strict=True):
            indices.append((row + x.clamp(min=0).minimum(columns - 1)) * heads + head)
            factors.append(x_weight * y_weight * (inside & inside_y))
    bags = batch * tokens * heads
    table = value_BNC.reshape(bags, -1)
    summed = F.embedding_bag(
        torch.stack(indices, -1).view(bags, -1),
        table,
        per_sample_weights=torch.stack(factors, -1).view(bags, -1).to(table.dtype),
        mode="sum",
    )
    return summed.view(batch, tokens, -1)
