"""SAM's image encoder without its neck; the outputs of its four global blocks are the features.

Shape suffixes: B pictures (or windows), H and W rows and columns of patches, C channels, D channels of
a head, N = H * W.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.layers import (
    Block,
    ShapeCache,
    at_least_float32,
    embed_patches,
    join_heads,
    join_windows,
    prefers_products,
    resize_table,
    split_windows,
)

PIXEL_MEAN = (123.675, 116.28, 103.53)  # of pixels in 0..255, from SAM
PIXEL_STD = (58.395, 57.12, 57.375)

LOGITS_AT_ONCE = 2**24  # attention logits held at a time: bounds the memory of global attention


class SamEncoder(nn.Module):
    """SAM's vision transformer.

    Attributes:
        pixel_mean, pixel_std: of pixels in 0..255, for the normalisation of pictures.

    Args:
        patch_embed, pos_embed, blocks: parts of a segment_anything `ImageEncoderViT`; the position
            table is [1, g, g, C].
        global_blocks: blocks whose outputs are wanted.
    """

    pixel_mean, pixel_std = PIXEL_MEAN, PIXEL_STD

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
        self._positions = ShapeCache()
        self._relative = ShapeCache(per_shape=2 * len(blocks))

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W], normalised and padded -> outputs of the global blocks, [B, C, h, w] each."""
        x = embed_patches(self.patch_embed.proj, images)
        grid = (x.shape[1], x.shape[2])
        x = x + self._positions.get(grid, self.pos_embed, lambda: resize_table(self.pos_embed[0], grid))
        outputs: list[Tensor] = []
        block: Block
        for i, block in enumerate(self.blocks):
            x = x + self._attention(block, block.norm1(x), i)
            x = x + block.mlp(block.norm2(x))
            if i in self.global_blocks:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def _attention(self, block: Block, x_BHWC: Tensor, index: int) -> Tensor:
        """Global or windowed attention with decomposed relative positions, [B, H, W, C]."""
        attention = block.attn
        _, height, width, _ = x_BHWC.shape
        if block.window_size == 0:
            qkv = attention.qkv(x_BHWC)
            mixed = self._attend(attention, qkv, index)
        else:
            # A padded patch is zero after the first norm, so its query, key and value are the bias alone.
            side = block.window_size
            bottom, right = -height % side, -width % side
            qkv = F.linear(x_BHWC, attention.qkv.weight)
            qkv = F.pad(qkv, (0, 0, 0, right, 0, bottom)) + attention.qkv.bias
            windows = self._attend(attention, split_windows(qkv, side), index)
            joined = join_windows(windows, (height + bottom, width + right))
            mixed = joined[:, :height, :width].contiguous()  # a strided input costs linear dearly
        out: Tensor = attention.proj(mixed)
        return out

    def _attend(self, attention: Block, qkv_BHWC: Tensor, index: int) -> Tensor:
        """Multi-head attention over one grid, [B, H, W, 3 * C] -> [B, H, W, C]."""
        batch, height, width, _ = qkv_BHWC.shape
        heads = attention.num_heads
        qkv = qkv_BHWC.reshape(batch, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q_BhHWD = q.unflatten(2, (height, width))
        rows = self._relative_table(attention.rel_pos_h, height, (index, "rows", height))
        columns = self._relative_table(attention.rel_pos_w, width, (index, "columns", width))
        by_row = torch.einsum("bnhwd,hkd->bnhwk", q_BhHWD, rows)
        by_column = torch.einsum("bnhwd,wkd->bnhwk", q_BhHWD, columns)
        attend = _attend_with_bias
        if prefers_products(qkv):
            attend = _attend_by_products
        at_once = max(1, LOGITS_AT_ONCE // (batch * (height * width) ** 2))
        some_heads = (x.split(at_once, 1) for x in (q, k, v, by_row, by_column))
        mixed = torch.cat([attend(*parts) for parts in zip(*some_heads, strict=True)], 1)
        return join_heads(mixed).view(batch, height, width, -1)

    def _relative_table(self, table: Tensor, size: int, key: tuple[int, str, int]) -> Tensor:
        """Relative position embedding of each (query, key) pair along one axis, [size, size, D]."""

        def compute() -> Tensor:
            resized = table
            if table.shape[0] != 2 * size - 1:
                by_channel = at_least_float32(table.T[None])
                resized = F.interpolate(by_channel, size=2 * size - 1, mode="linear")[0].T.to(table.dtype)
            place = torch.arange(size, device=table.device)
            return resized[place[:, None] - place + size - 1]

        return self._relative.get(key, table, compute)


def _attend_with_bias(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention, [B, heads, N, D], whose logits get a bias for the key's row and one for its column.

    Args:
        q, k, v: [B, heads, N, D].
        by_row, by_column: [B, heads, H, W, H] and [B, heads, H, W, W].
    """
    bias = by_row.contiguous()[..., None] + by_column.contiguous()[..., None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(4).flatten(2, 3))


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """The same attention as matrix products alone.

    A query carries its bias for each row and column as further channels, and a key has a one at its
    own row and column, so that their product is logit plus bias.
    """
    height, width = by_row.shape[-1], by_column.shape[-1]
    at_row = torch.eye(height, dtype=k.dtype)[:, None].expand(-1, width, -1).flatten(0, 1)
    at_column = torch.eye(width, dtype=k.dtype).repeat(height, 1)
    place = torch.cat([at_row, at_column], -1).expand(*k.shape[:-1], -1)
    biased_q = torch.cat([q * q.shape[-1] ** -0.5, by_row.flatten(2, 3), by_column.flatten(2, 3)], -1)
    weights = (biased_q @ torch.cat([k, place], -1).transpose(-2, -1)).softmax(-1)
    return weights @ v
