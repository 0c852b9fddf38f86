"""Pictures to network resolution: one truth for training, evaluation and the service."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import PictureError

if TYPE_CHECKING:
    from torch import Tensor  # whoever only resizes pictures need not wait for torch


def network_size(size: tuple[int, int], short_side: int | None, long_side: int) -> tuple[int, int]:
    """Rows and columns after resizing to `short_side`, or less where the long side would pass `long_side`.

    Args:
        size: rows and columns of the picture.
        short_side: None keeps the size.
        long_side: largest long side, pixels.
    """
    if short_side is None:
        return size
    scale = min(short_side / min(size), long_side / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def to_network(picture: "NDArray[np.uint8] | Tensor", short_side: int | None, long_side: int) -> "Tensor":
    """Resizes a picture (bilinear, antialiased when shrinking), uint8 [3, h, w].

    Args:
        picture: RGB, uint8; an array [H, W, 3] or a tensor [3, H, W].
        short_side, long_side: see `network_size`.

    Raises:
        PictureError: another shape or type, or no pixels.
    """
    import torch

    if isinstance(picture, torch.Tensor):
        if picture.dim() != 3 or picture.shape[0] != 3 or picture.dtype != torch.uint8:
            raise PictureError(
                f"an image tensor must be uint8 [3, H, W], got {picture.dtype} {list(picture.shape)}"
            )
        picture = picture.permute(1, 2, 0).cpu().numpy()
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise PictureError(
            f"an image must be uint8 [H, W, 3] with pixels, got {picture.dtype} {list(picture.shape)}"
        )
    height, width = picture.shape[:2]
    rows, columns = network_size((height, width), short_side, long_side)
    return torch.from_numpy(np.array(resized(picture, (rows, columns)))).permute(2, 0, 1).contiguous()


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture [h, w, 3] at another size, [H, W, 3]: bilinear, antialiased when shrinking.

    The picture itself where it has that size; else an array that cannot be written to.
    """
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))
