"""Fusion of CLIP's features into the image backbone's (section 3.2, Eq. 1)."""

from typing import NamedTuple

from torch import Tensor, nn

from model.network.kernels import pointwise

NORM_EPSILON = 1e-6


class Level(NamedTuple):
    """Features of one stride: the two summands of Eq. 1, not yet resized and not yet added.

    Adding, resizing and the pixel decoder's 1x1 projection are all linear, so the sum is left to the
    pixel decoder, which projects the small maps first and resizes after.

    Attributes:
        stride: of the sum, pixels of the padded picture a cell: 4, 8, 16 or 32.
        backbone: the image backbone's map, [B, C, h, w], at the resolution that it comes in; SAM's are all
            of its patches' stride.
        clip: CLIP's map, projected to the same channels, [B, C, h', w'] on CLIP's grid; None at stride 4.
    """

    stride: int
    backbone: Tensor
    clip: Tensor | None


class FusionLayer(nn.Module):
    """Layer norm over channels and a 1x1 convolution."""

    def __init__(self, clip_width: int, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(clip_width, eps=NORM_EPSILON)
        self.conv = nn.Conv2d(clip_width, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, clip width, h, w] -> [B, width, h, w]."""
        normed: Tensor = self.norm(x_BCHW.permute(0, 2, 3, 1))
        return pointwise(self.conv, normed.permute(0, 3, 1, 2), self.conv.bias)


class Fusion(nn.Module):
    """Brings three CLIP layers to the width of the backbone's maps at strides 8, 16 and 32.

    Args:
        clip_width: channels of CLIP's tokens.
        widths: channels of the backbone's maps at strides 8, 16, 32.
    """

    def __init__(self, *, clip_width: int, widths: tuple[int, int, int]):
        super().__init__()
        self.layers = nn.ModuleList(FusionLayer(clip_width, width) for width in widths)

    def forward(self, backbone: list[Tensor], clip: list[Tensor]) -> list[Level]:
        """Pairs the maps.

        Args:
            backbone: four maps for strides 4, 8, 16, 32, at any resolution, [B, C, h, w].
            clip: three CLIP layers, [B, clip width, h', w'].

        Returns:
            Levels of strides 4, 8, 16, 32.
        """
        finest, *rest = backbone
        levels = [Level(4, finest, None)]
        for stride, layer, x, y in zip((8, 16, 32), self.layers, rest, clip, strict=True):
            levels.append(Level(stride, x, layer(y)))
        return levels
