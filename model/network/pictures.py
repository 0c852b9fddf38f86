"""Pictures as the encoders want them: normalised, and padded at the bottom and right.

Shapes: B pictures, H and W rows and columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.layers import round_up

STRIDE = 32  # pictures are padded to multiples of it, pixels
Channels = tuple[float, float, float]  # red, green, blue


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Mean and standard deviation of the pixels that an encoder was trained on, by channel."""

    mean: Channels
    std: Channels

    def tensors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as [3, 1, 1] each."""

        def filled(values: Channels) -> Tensor:
            # on the device itself: a copy from the host would be waited for
            return torch.stack([torch.full((1, 1), value, device=device, dtype=dtype) for value in values])

        return filled(self.mean), filled(self.std)


def _in_bytes(values: Channels) -> Channels:
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue


# OpenAI's CLIP, of pixels in 0..1 and in 0..255
CLIP_FRACTIONS = PixelStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CLIP = PixelStatistics(_in_bytes(CLIP_FRACTIONS.mean), _in_bytes(CLIP_FRACTIONS.std))
# ImageNet's, of pixels in 0..255: SAM's and those of timm's Swin
IMAGENET = PixelStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def normalise(images: Tensor, pixels: PixelStatistics, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pictures [..., 3, H, W], in the unit of the statistics, with mean 0 and standard deviation 1."""
    mean, std = pixels.tensors(images.device, dtype)
    return (images - mean) / std


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a picture after padding, pixels."""
    return round_up(size, STRIDE)


def pad_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Zeros at the bottom and right, [..., h, w] -> [..., H, W]."""
    return F.pad(x, (0, size[1] - x.shape[-1], 0, size[0] - x.shape[-2]))
