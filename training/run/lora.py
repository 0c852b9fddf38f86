"""Low-rank updates of CLIP's queries and values, W + B A (LoRA, Hu et al. 2021, section 4.1, scale 1).

While a run goes on they are a module of the model, `lora`, beside CLIP's own weights, which stay as they
are. What leaves the run has them merged into the weights, and no such module.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from model.network.ebseg import EBSeg
from model.network.layers import Block
from training.errors import TrainingError

NAME = "lora"  # of the module in a model
WEIGHT = "in_proj_weight"  # of open_clip's attention, [3 * C, C]: rows of queries, keys, values


class Lora(nn.Module):
    """Updates of the queries and values of every block of CLIP's image tower.

    Attributes:
        down: A of each block, [rank, C], random; one for queries and values.
        up: B of each block, [2, C, rank], zero at first: of queries and of values.

    Args:
        ebseg: whose blocks are updated; they are referred to, not owned.
        rank: of the updates; at most C.
        seed: of the random numbers.

    Raises:
        TrainingError: the rank is larger than C.
    """

    def __init__(self, ebseg: EBSeg, rank: int, seed: int):
        super().__init__()
        blocks: list[Block] = [*ebseg.clip_image.blocks, *ebseg.mask_attention.blocks]
        self._attentions = tuple(block.attn for block in blocks)  # a tuple, so that they are no children
        width = ebseg.config.clip.image_width
        if rank > width:
            raise TrainingError(f"lora_rank must be at most CLIP's width, {width}, got {rank}")
        generator = torch.Generator().manual_seed(seed)
        bound = 1 / math.sqrt(width)
        down = [(2 * torch.rand(rank, width, generator=generator) - 1) * bound for _ in blocks]
        self.down = nn.ParameterList([nn.Parameter(one) for one in down])
        self.up = nn.ParameterList([nn.Parameter(torch.zeros(2, width, rank)) for _ in blocks])

    def weights(self) -> list[Tensor]:
        """The updated weights of each block's attention, [3 * C, C]."""
        found = []
        for attention, down, up in zip(self._attentions, self.down, self.up, strict=True):
            queries, values = up @ down
            found.append(getattr(attention, WEIGHT) + torch.cat([queries, torch.zeros_like(values), values]))
        return found

    @contextmanager
    def active(self) -> Iterator[None]:
        """Has the model compute with the updated weights, through which gradients flow, for a while."""
        weights = self.weights()
        for attention, weight in zip(self._attentions, weights, strict=True):
            vars(attention)[WEIGHT] = weight  # found before the parameter of that name
        try:
            yield
        finally:
            for attention in self._attentions:
                del vars(attention)[WEIGHT]


def install(ebseg: EBSeg, rank: int, seed: int) -> None:
    """Gives a model updates, which change nothing yet; see `Lora`."""
    ebseg.add_module(NAME, Lora(ebseg, rank, seed).to(ebseg.device))


def active(ebseg: EBSeg) -> AbstractContextManager[None]:
    """`Lora.active` of a model that has updates; nothing otherwise."""
    lora = ebseg._modules.get(NAME)
    return lora.active() if isinstance(lora, Lora) else nullcontext()


@contextmanager
def merged(ebseg: EBSeg) -> Iterator[None]:
    """Makes a plain model of one with updates for a while, the updates merged into its weights.

    By copies in place; afterwards the weights are what they were, bit by bit.
    """
    lora = ebseg._modules.pop(NAME, None)
    if not isinstance(lora, Lora):
        yield
        return
    attentions = lora._attentions
    kept = [getattr(attention, WEIGHT).detach().clone() for attention in attentions]
    with torch.no_grad():
        for attention, weight in zip(attentions, lora.weights(), strict=True):
            getattr(attention, WEIGHT).copy_(weight)
    try:
        yield
    finally:
        with torch.no_grad():
            for attention, weight in zip(attentions, kept, strict=True):
                getattr(attention, WEIGHT).copy_(weight)
        ebseg.add_module(NAME, lora)
