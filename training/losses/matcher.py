"""Hungarian matching of queries to ground-truth masks (Mask2Former's, on the embeddings A's logits).

Shapes: B pictures, Q queries, K classes, k ground-truth masks of one picture, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.network.copies import copies_of, download


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Ground truth of one picture.

    Attributes:
        labels: class of each mask, int64 [k].
        masks: bool [k, H, W], at the picture's own size.
    """

    labels: Tensor
    masks: Tensor


NO_NUMBER = 1e30  # cost of a pair whose cost is not finite
Match = tuple[Tensor, Tensor]  # queries and the masks that they are matched with, int64, equally long


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchingCosts:
    """Weights of a pair's costs; the paper's section 3.4 takes Mask2Former's.

    Attributes:
        classes: of minus the probability of the mask's class, -1..0.
        mask: of the binary cross entropy, mean over points, at least 0.
        dice: of 1 minus the dice coefficient, 0..1.
    """

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of maps, [N, P].

    Args:
        maps: [N, H, W].
        points: (x, y) in 0..1 of the map, [P, 2] for all maps alike or [N, P, 2].
    """
    if points.dim() == 2:  # the maps as channels of one, whose places are worked out once
        return F.grid_sample(maps[None], 2 * points[None, :, None] - 1, align_corners=False)[0, :, :, 0]
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


@torch.no_grad()
def pair_costs(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    points: Tensor,
    costs: MatchingCosts,
) -> Tensor:
    """What it costs to match each of a picture's queries with each of its masks.

    Args:
        class_logits: of embeddings A, the background column last, [Q, K + 1].
        mask_logits: [Q, h, w].
        labels: int64 [k].
        masks: float [k, H, W], covering the same picture as the logits.
        points: where masks are compared, (x, y) in 0..1, [P, 2].
        costs: weights.

    Returns:
        Finite, float32 [Q, k].
    """
    predicted = sample_points(mask_logits.float(), points)
    wanted = sample_points(masks, points)
    cost_class = -class_logits.float().softmax(-1)[:, labels]
    # Binary cross entropy of every pair: softplus(-x) where the mask is, softplus(x) elsewhere; the two
    # differ by x. Softplus by log instead of log1p takes a fifth of the time, and is off by 1e-7 at most.
    outside = predicted.clamp(min=0) + (1 + (-predicted.abs()).exp()).log()
    cost_mask = (outside.sum(1, keepdim=True) - predicted @ wanted.T) / len(points)
    inside = predicted.sigmoid()
    overlap = 2 * inside @ wanted.T
    cost_dice = 1 - (overlap + 1) / (inside.sum(1)[:, None] + wanted.sum(1) + 1)
    cost = costs.classes * cost_class + costs.mask * cost_mask + costs.dice * cost_dice
    # what is no number is matched last; the loss, which is none either then, tells of it
    return cost.nan_to_num(nan=NO_NUMBER, posinf=NO_NUMBER, neginf=NO_NUMBER)


def assign(costs: Sequence[Tensor]) -> list[Match]:
    """Matches queries with masks at the least total cost, each once.

    All costs go to the host in one copy, and all pairs back in one: a GPU waits once for the host.

    Args:
        costs: of `pair_costs`, [Q, k] each, of any number of pictures and stages.

    Returns:
        min(Q, k) pairs of each, by query.
    """
    if not costs:
        return []
    pairs = [linear_sum_assignment(cost.numpy()) for cost in download(costs)]
    flat = copies_of(costs[0].device).upload([torch.from_numpy(side) for pair in pairs for side in pair])
    return list(zip(flat[::2], flat[1::2], strict=True))
