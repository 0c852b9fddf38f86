"""SAM's image encoder without its neck; the outputs of its four global blocks are the features.

Shape suffixes: B pictures (or windows), H and W rows and columns of patches, C channels, D channels of
a head, N = H * W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.network.kernels import attention_on_grid, embed_patches
from model.network.layers import (
    Block,
    at_least_float32,
    join_heads,
    join_windows,
    pad_grid,
    resize_table,
    round_up,
    split_windows,
)
from model.network.pictures import IMAGENET
from model.network.table_cache import TableCache


class SamEncoder(nn.Module):
    """SAM's vision transformer.

    Attributes:
        pixels: what pictures are normalised with, of values in 0..255.
        recompute: in training, keep nothing of what a block computes, and compute it again backwards.

    Args:
        patch_embed, pos_embed, blocks: parts of a segment_anything `ImageEncoderViT`; the position
            table is [1, g, g, C].
        global_blocks: blocks whose outputs are wanted.
    """

    pixels = IMAGENET

    def __init__(
        self,
        *,
        patch_embed: Block,
        pos_embed: nn.Parameter,
        blocks: nn.ModuleList,
        global_blocks: tuple[int, ...],
    ):
        super().__init__()
        self.patch_embed = patch_embed
        self.pos_embed = pos_embed
        self.blocks = blocks
        self.global_blocks = global_blocks
        self.recompute = False
        self._tables = TableCache()

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W], normalised and padded -> outputs of the global blocks, [B, C, h, w] each."""
        x = embed_patches(self.patch_embed.proj, images)
        positions, relative = self._tables_of((x.shape[1], x.shape[2]))
        x = x + positions
        outputs: list[Tensor] = []
        block: Block
        for i, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                # no block draws random numbers
                x = checkpoint(_run, block, x, *relative[i], use_reentrant=False, preserve_rng_state=False)
            else:
                x = _run(block, x, *relative[i])
            if i in self.global_blocks:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def _tables_of(self, grid: tuple[int, int]) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Positions, [h, w, C], and each block's relative positions by row and by column, [side, side, D]."""
        parameters: list[Tensor] = [self.pos_embed]
        block: Block
        for block in self.blocks:
            parameters += [block.attn.rel_pos_h, block.attn.rel_pos_w]

        def make() -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
            relative = []
            block: Block
            for block in self.blocks:
                height, width = (block.window_size,) * 2 if block.window_size else grid
                relative.append(
                    (
                        relative_positions(block.attn.rel_pos_h, height),
                        relative_positions(block.attn.rel_pos_w, width),
                    )
                )
            return resize_table(self.pos_embed[0], grid), tuple(relative)

        return self._tables.get(grid, make, *parameters)


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Relative position embedding of each (query, key) pair along one axis, [size, size, D].

    Args:
        table: of the offsets from one end to the other, [2 * side - 1, D]; resized linearly where `size` is
            another side.
        size: tokens along the axis.
    """
    if table.shape[0] != 2 * size - 1:
        by_channel = at_least_float32(table.T[None])
        table = F.interpolate(by_channel, size=2 * size - 1, mode="linear")[0].T.to(table.dtype)
    place = torch.arange(size, device=table.device)
    return table[place[:, None] - place + size - 1]


def _run(block: Block, x_BHWC: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One block; `rows` and `columns` as in `_attention`."""
    x_BHWC = x_BHWC + _attention(block, block.norm1(x_BHWC), rows, columns)
    out: Tensor = x_BHWC + block.mlp(block.norm2(x_BHWC))
    return out


def _attention(block: Block, x_BHWC: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Global or windowed attention with decomposed relative positions, [B, H, W, C].

    Args:
        block: of segment_anything.
        x_BHWC: its normed input.
        rows, columns: of `relative_positions`.
    """
    attention = block.attn
    size = (x_BHWC.shape[1], x_BHWC.shape[2])
    if block.window_size == 0:
        mixed = _attend(attention, attention.qkv(x_BHWC), rows, columns)
    else:
        # A padded patch is zero after the first norm, so its query, key and value are the bias alone.
        side = block.window_size
        padded = round_up(size, side)
        qkv = pad_grid(F.linear(x_BHWC, attention.qkv.weight), padded) + attention.qkv.bias
        windows = _attend(attention, split_windows(qkv, side), rows, columns)
        joined = join_windows(windows, padded)
        mixed = joined[:, : size[0], : size[1]].contiguous()  # a strided input costs linear dearly
    out: Tensor = attention.proj(mixed)
    return out


def _attend(attention: Block, qkv_BHWC: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multi-head attention over one grid, [B, H, W, 3 * C] -> [B, H, W, C]."""
    batch, height, width, _ = qkv_BHWC.shape
    qkv = qkv_BHWC.reshape(batch, height * width, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.unbind(0)
    q_BhHWD = q.unflatten(2, (height, width))
    by_row = torch.einsum("bnhwd,hkd->bnhwk", q_BhHWD, rows)
    by_column = torch.einsum("bnhwd,wkd->bnhwk", q_BhHWD, columns)
    mixed = attention_on_grid(q, k, v, by_row, by_column)
    return join_heads(mixed).view(batch, height, width, -1)
