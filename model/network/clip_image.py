"""CLIP's image tower up to three quarters of its depth, with the surgery path beside it.

Shape suffixes: B pictures, N = h * w patches of the CLIP grid, C channels, D channels of a head.
The mask attention (mask_attention.py) runs the remaining blocks.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.kernels import attention, embed_patches
from model.network.layers import Block, join_heads, resize_table, split_heads
from model.network.table_cache import TableCache


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFeatures:
    """What the tower hands on.

    Attributes:
        layers: outputs of the fused layers, class token left out, [B, C, h, w] each.
        tokens: output of the last block run, class token first, [B, 1 + N, C].
        surgery: sum of the surgery path so far, pixels only, [B, N, C]; None in training.
        grid: (h, w).
    """

    layers: list[Tensor]
    tokens: Tensor
    surgery: Tensor | None
    grid: tuple[int, int]


class ClipImageEncoder(nn.Module):
    """First blocks of CLIP's vision transformer.

    Args:
        conv1, class_embedding, positional_embedding, ln_pre, blocks: parts of an open_clip
            `VisionTransformer`; the position table is [1 + g * g, C] for a square grid of side g.
        kept_layers: layers, counted from 1, whose outputs are wanted.
        surgery_start: block, counted from 0, where the surgery path begins.
    """

    def __init__(
        self,
        *,
        conv1: nn.Conv2d,
        class_embedding: nn.Parameter,
        positional_embedding: nn.Parameter,
        ln_pre: nn.Module,
        blocks: nn.ModuleList,
        kept_layers: tuple[int, ...],
        surgery_start: int,
    ):
        super().__init__()
        self.conv1 = conv1
        self.class_embedding = class_embedding
        self.positional_embedding = positional_embedding
        self.ln_pre = ln_pre
        self.blocks = blocks
        self.kept_layers = kept_layers
        self.surgery_start = surgery_start
        self._positions = TableCache()

    def forward(self, images: Tensor, surgery: bool) -> ClipFeatures:
        """Runs the blocks.

        Args:
            images: normalised, padded and shrunk pictures, [B, 3, H, W]; an edge that does not fill a
                patch is lost, as in the official code.
            surgery: whether to run the surgery path (inference) or not (training).
        """
        patches = embed_patches(self.conv1, images)
        grid = (patches.shape[1], patches.shape[2])
        x = patches.flatten(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1)
        x = self.ln_pre(x + self._position_table(grid))
        layers: list[Tensor] = []
        pixels: Tensor | None = None
        block: Block
        for i, block in enumerate(self.blocks):
            if surgery and i >= self.surgery_start:
                q, k, v = qkv(block, block.ln_1(x))
                pixels = (x[:, 1:] if pixels is None else pixels) + surgery_attention(block, v)
                x = feed_forward(block, x + attend(block, q, k, v))
            else:
                x = feed_forward(block, x + attend(block, *qkv(block, block.ln_1(x))))
            if i + 1 in self.kept_layers:
                layers.append(x[:, 1:].transpose(1, 2).unflatten(2, grid))
        return ClipFeatures(layers=layers, tokens=x, surgery=pixels, grid=grid)

    def _position_table(self, grid: tuple[int, int]) -> Tensor:
        """Of the class token and a grid of patches, [1 + h * w, C]."""

        def resized() -> Tensor:
            side = int((self.positional_embedding.shape[0] - 1) ** 0.5)
            patches = self.positional_embedding[1:].unflatten(0, (side, side))
            return torch.cat([self.positional_embedding[:1], resize_table(patches, grid).flatten(0, 1)])

        return self._positions.get(grid, resized, self.positional_embedding)


# The parts of one open_clip residual block, as functions: the mask attention combines them differently.


def qkv(block: Block, normed_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the block's attention, [B, heads, N, D] each."""
    attention = block.attn
    projected = F.linear(normed_BNC, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = projected.chunk(3, -1)
    heads = attention.num_heads
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def attend(block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention and output projection, [B, N, C]."""
    out: Tensor = block.attn.out_proj(join_heads(attention(q, k, v)))
    return out


def surgery_attention(block: Block, v: Tensor) -> Tensor:
    """CLIP Surgery's attention of values with values, for the pixels only, [B, N, C].

    The values belong to the class token and the pixels, [B, heads, 1 + N, D]. The class token is seen,
    but its own row is never read.
    """
    return attend(block, v[:, :, 1:], v, v)


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """The second half of a block, residual included."""
    out: Tensor = x + block.mlp(block.ln_2(x))
    return out
