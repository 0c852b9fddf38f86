"""Weights of the released checkpoints to a model, and a model's back to what the official code loads.

Scripts that compare this project with the official code import these names from here.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.network.ebseg import EBSeg
from model.released.fitting import account_of
from model.released.official_names import (
    CAUSAL_MASK,
    CLASS_WEIGHTS,
    COPIES,
    NO_OBJECT_WEIGHT,
    causal_mask,
    official_names,
)
from model.vocabulary.classes import TrainingClasses

__all__ = ["load_official", "official_names", "to_official"]


def load_official(
    state_dict: Mapping[str, Tensor], variant: str, training_classes: TrainingClasses | None = None
) -> EBSeg:
    """Builds the model of a released checkpoint's weights, in evaluation mode.

    Args:
        state_dict: official names to tensors.
        variant: "base" or "large" (or "tiny").
        training_classes: what it was trained on; COCO-Stuff's 171 classes when left out.

    Raises:
        CheckpointError: see `account_of` and `Account.ebseg`.
    """
    return account_of(state_dict, variant, training_classes=training_classes).ebseg()


def to_official(ebseg: EBSeg) -> dict[str, Tensor]:
    """The state dict that the official code loads, float32 on the CPU."""
    ours = ebseg.state_dict()
    tensors = {
        official: ours[name].detach().float().cpu() for name, official in official_names(ebseg).items()
    }
    tensors |= {copy: tensors[original] for copy, original in COPIES.items()}
    tensors[CAUSAL_MASK] = causal_mask(ebseg.config.clip.context_length)
    weights = torch.ones(len(ebseg.training_classes.classes) + 1)
    weights[-1] = NO_OBJECT_WEIGHT
    tensors[CLASS_WEIGHTS] = weights
    return tensors
