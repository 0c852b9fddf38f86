"""How well CLIP names what it sees under true masks: the ceiling of all that the segmenter can reach."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.network.ebseg import EBSeg
from model.network.pictures import CLIP_FRACTIONS, normalise
from training.progress import progress
from training.storybook.pretrain.pictures import OUTSIDE, Pool

SMALLEST = 0.03  # share of a picture below which a mask is not asked about


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """Share of true masks that are named right, 0..1.

    Attributes:
        frozen_trained, frozen_new: by embeddings D.
        mask_attention_trained, mask_attention_new: by embeddings B.
        by_class: of D and of B for each class, [2, classes]; NaN for a class that does not occur.
    """

    frozen_trained: float
    frozen_new: float
    mask_attention_trained: float
    mask_attention_new: float
    by_class: NDArray[np.float64]

    @property
    def least(self) -> float:
        """The lowest of the four."""
        return min(self.frozen_trained, self.frozen_new, self.mask_attention_trained, self.mask_attention_new)


@torch.inference_mode()
def ceiling(ebseg: EBSeg, data: Pool, count: int) -> Ceiling:
    """Names the true masks of `count` pictures among all classes of their book.

    Args:
        ebseg: its CLIP is asked, where it is; the rest may be untrained.
        data: pictures at the size that CLIP sees.
        count: how many of them.
    """
    names = data.book.classes
    text, device = ebseg.encode_text(names), ebseg.device
    right = np.zeros((2, len(names)))
    asked = np.zeros(len(names))
    with progress("naming true masks", count, unit="scenes") as bar:
        for i in range(count):
            labels = torch.from_numpy(data.labels[i].astype(np.int64))
            classes = [c for c in labels.unique().tolist() if (labels == c).float().mean() >= SMALLEST]
            masks = torch.stack([labels == c for c in classes]).float().to(device)
            for row, embeddings in enumerate(_embeddings(ebseg, data.pictures[i], masks)):
                found = (embeddings @ text.T).argmax(1).tolist()
                for wanted, named in zip(classes, found, strict=True):
                    right[row, wanted] += wanted == named
            asked[classes] += 1
            bar.advance(1)
    new = np.array([name in data.book.new for name in names])
    shares = [right[row][side].sum() / asked[side].sum() for row in (0, 1) for side in (~new, new)]
    with np.errstate(invalid="ignore"):
        by_class = right / asked
    return Ceiling(
        frozen_trained=shares[0],
        frozen_new=shares[1],
        mask_attention_trained=shares[2],
        mask_attention_new=shares[3],
        by_class=by_class,
    )


def _embeddings(ebseg: EBSeg, picture: NDArray[np.uint8], masks: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings D and B of masks [k, H, W], [k, C] each."""
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(ebseg.device) / 255
    features = ebseg.clip_image(normalise(image, CLIP_FRACTIONS), True)
    inside = (F.interpolate(masks[None], size=features.grid, mode="area")[0] > 0.5).flatten(1)
    heads = ebseg.config.clip.image_heads
    bias = torch.where(inside, 0.0, OUTSIDE)[None, None].expand(-1, heads, -1, -1)
    mask_attention, f_clip = ebseg.mask_attention(features, bias)
    assert f_clip is not None
    weight = inside.float()
    pooled = weight @ f_clip[0].flatten(1).T / weight.sum(1, keepdim=True).clamp_min(1)
    return pooled, mask_attention[0]
