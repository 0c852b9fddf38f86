"""Swin Transformer as an image backbone (Table 7); the outputs of its four stages are the features.

timm's forward pads a grid that windows do not fill after shifting it, so that tokens from opposite edges
meet unmasked. Here the grid is padded first and shifted then, as Swin's own detectors do; on grids that
come out even the two are equal. Shape suffixes: B pictures (or windows), H and W rows and columns of
tokens, C channels, N tokens of a window.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import WindowAttention, get_relative_position_index
from torch import Tensor, nn

from model.network.kernels import embed_patches
from model.network.layers import Block, join_windows, pad_grid, round_up, split_windows
from model.network.pictures import IMAGENET
from model.network.table_cache import SIZES_KEPT, TableCache

STAGES = 4  # each has a grid of its own
MASKED = -100.0  # added to the logits of pairs that must not meet, from Swin


class SwinEncoder(nn.Module):
    """Swin Transformer without its last norm and classifier.

    Attributes:
        pixels: what pictures are normalised with, of values in 0..255.

    Args:
        patch_embed, layers: parts of a timm `SwinTransformer`.
        window: side of the attention windows, in tokens.
    """

    pixels = IMAGENET

    def __init__(self, *, patch_embed: Block, layers: nn.Sequential, window: int):
        super().__init__()
        self.patch_embed = patch_embed
        self.layers = layers
        self.window = window
        self._masks = TableCache(most=STAGES * SIZES_KEPT)
        for module in layers.modules():
            if isinstance(module, WindowAttention):
                # no weight, so a model built without memory would never get it
                index = get_relative_position_index(window, window, device=torch.device("cpu"))
                module.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W], normalised and padded -> maps of strides 4, 8, 16 and 32, [B, C, h, w] each.

        Each map is normalised over its channels, without weights: the 1x1 convolution that reads it can
        scale and shift it.
        """
        x = self.patch_embed.norm(embed_patches(self.patch_embed.proj, images))
        outputs: list[Tensor] = []
        stage: Any
        for stage in self.layers:
            x = stage.downsample(x)
            for i, block in enumerate(stage.blocks):
                x = x + self._attention(block, block.norm1(x), shifted=i % 2 == 1)
                x = x + block.mlp(block.norm2(x))
            outputs.append(F.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
        return outputs

    def _attention(self, block: Block, x_BHWC: Tensor, shifted: bool) -> Tensor:
        """Attention within windows, which lie half a window further in every second block, [B, H, W, C]."""
        side = self.window
        _, height, width, _ = x_BHWC.shape
        padded = round_up((height, width), side)
        # a grid of one window has nothing to shift
        down, across = (side // 2 if shifted and size > side else 0 for size in padded)
        mask = self._masks.get(
            (padded, down, across, x_BHWC.dtype),
            lambda: apart(padded, (down, across), side, x_BHWC.device, x_BHWC.dtype),
        )
        x = pad_grid(x_BHWC, padded).roll((-down, -across), (1, 2))
        windows = split_windows(x, side).flatten(1, 2)
        mixed = block.attn(windows, mask=mask)
        x = join_windows(mixed.unflatten(1, (side, side)), padded).roll((down, across), (1, 2))
        return x[:, :height, :width]


def apart(
    size: tuple[int, int], shift: tuple[int, int], side: int, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Added to the attention logits of each window, so that only neighbours meet, [windows, N, N].

    A shift brings tokens of the opposite edge into the last windows. None where nothing is shifted.
    """
    if not any(shift):
        return None
    from_above = torch.arange(size[0], device=device) >= size[0] - shift[0]
    from_left = torch.arange(size[1], device=device) >= size[1] - shift[1]
    origin = 2 * from_above[:, None] + from_left
    windows = split_windows(origin[None, :, :, None], side).flatten(1)
    differ = windows[:, :, None] != windows[:, None]
    return torch.zeros(differ.shape, device=device, dtype=dtype).masked_fill(differ, MASKED)
