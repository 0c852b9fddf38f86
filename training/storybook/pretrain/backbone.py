"""Pretrains a tiny image backbone, SAM's encoder or a Swin, on masks without classes.

A point is given, and the mask of the region around it is wanted. A light head, thrown away afterwards,
brings the backbone's four maps to stride 4; a pixel belongs to the point's region as far as its embedding
agrees with the one at the point.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.copies import copies_of
from model.network.ebseg import EBSeg
from model.network.layers import resize
from model.network.pictures import normalise
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.samples import Samples
from training.progress import progress
from training.run.precision import quick_autocast
from training.storybook.pretrain.clip import cosine

STRIDE = 4
POINTS = 12  # a picture


@dataclass(frozen=True, kw_only=True, slots=True)
class BackbonePretraining:
    """Settings: how many steps of how many pictures, AdamW with a cosine schedule, warm-up in steps."""

    steps: int = 900
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: int = 50
    side: int = 192  # pixels of the square crops
    seed: int = 0


class PointHead(nn.Module):
    """Maps of any strides to pixel embeddings at stride 4, [B, channels, H / 4, W / 4].

    Args:
        widths: channels of the maps.
        channels: of the embeddings.
    """

    def __init__(self, widths: Sequence[int], channels: int = 48):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.mix = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, maps: Sequence[Tensor], points: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask logits of the points' regions, [B, P, H / 4, W / 4].

        Args:
            maps: the backbone's, [B, C, h, w] each.
            points: pixels at stride 4 as rows of the flattened map, int64 [B, P].
            size: rows and columns at stride 4.
        """
        total = sum(resize(layer(x), size) for layer, x in zip(self.lateral, maps, strict=True))
        pixels = F.normalize(self.mix(total), dim=1).flatten(2)
        given = pixels.gather(2, points[:, None].expand(-1, pixels.shape[1], -1))
        logits: Tensor = (self.scale * given.transpose(1, 2) @ pixels + self.bias).unflatten(2, size)
        return logits


def pretrain_backbone(
    ebseg: EBSeg, data: SegmentationFolder, settings: BackbonePretraining, device: torch.device
) -> float:
    """Trains the model's image backbone in place; it comes back frozen.

    Args:
        ebseg: the model; nothing else of it is touched.
        data: a split; only which pixels share a label is used, never which label.
        settings: of the training.
        device: where it runs; the backbone comes back to a CPU.

    Returns:
        Mean IoU of the predicted regions over the last tenth of the steps, 0..1.
    """
    torch.manual_seed(settings.seed)
    backbone = ebseg.backbone.to(device)
    head = PointHead(ebseg.config.backbone_widths).to(device)
    backbone.requires_grad_(True).train()
    parameters = [*backbone.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    size = (settings.side // STRIDE, settings.side // STRIDE)
    copies = copies_of(device)
    last: deque[float] = deque(maxlen=max(1, settings.steps // 10))
    samples = Samples(data, _loading(data, settings)).batches(0, slice(None))
    with samples as batches, progress("pretraining the image backbone", settings.steps, unit="steps") as bar:
        for step in range(settings.steps):
            batch = next(batches)
            pictures = torch.stack([sample.picture for sample in batch])
            regions = torch.stack([_regions(sample.target.masks) for sample in batch])
            points = torch.randint(regions.shape[1], (settings.batch, POINTS))
            pictures, regions, points = copies.upload([pictures, regions, points])
            images = normalise(pictures, backbone.pixels)
            wanted = regions.gather(1, points)[:, :, None] == regions[:, None]
            with quick_autocast(device):
                maps = backbone(images)
            logits = head([x.float() for x in maps], points, size).flatten(2)
            truth = wanted.float()
            loss = F.binary_cross_entropy_with_logits(logits, truth) + dice_loss(logits, truth)
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * cosine(step, settings.warm_up, settings.steps)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            inside = logits > 0
            last.append(((inside & wanted).sum(2) / (inside | wanted).sum(2)).mean().item())
            bar.advance(1, loss=loss.item(), iou=last[-1])
    backbone.requires_grad_(False).eval().to("cpu")
    return sum(last) / len(last)


def _loading(data: SegmentationFolder, settings: BackbonePretraining) -> TrainConfig:
    """What reads and augments the pictures, as a run's configuration."""
    return TrainConfig(
        data=str(data.root),
        train_split=data.split,
        variant="tiny",
        batch=settings.batch,
        steps=settings.steps,
        crop=settings.side,
        short_sides=(settings.side * 5 // 6, settings.side, settings.side * 4 // 3),
        seed=settings.seed,
        workers=1,
    )


def _regions(masks: Tensor) -> Tensor:
    """Which region each pixel at stride 4 belongs to, 0 for none; int64 [pixels]."""
    small = masks[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].flatten(1)
    number = torch.arange(1, len(masks) + 1)[:, None]
    return (small * number).amax(0) if len(masks) else torch.zeros_like(small[:0].sum(0))


def dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over masks of one minus the dice coefficient; maps flattened in the last dimension."""
    inside = logits.sigmoid()
    return (1 - (2 * (inside * wanted).sum(-1) + 1) / (inside.sum(-1) + wanted.sum(-1) + 1)).mean()
