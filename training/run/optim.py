"""Optimiser, learning rate and clipping: AdamW under a poly schedule (section 4.1)."""

from typing import Any

import torch
from torch import Tensor, nn

from training.config import TrainConfig
from training.errors import TrainingError
from training.run.parts import factor_of

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
# Tables of embeddings and positions that the official training does not shrink; the names are the model's
# own, and timm's for other backbones. It does shrink the background's row and the pixel decoder's levels.
TABLES = (
    "positional_embedding",
    "pos_embed",
    "class_embedding",
    "transformer_decoder.level_embed",
    "query_features",
    "query_places",
    "rel_pos_h",
    "rel_pos_w",
    "relative_position_bias_table",
)
# Of these the norms decay as well: to the official training, which knows norms by their type, they are none.
DECAYING_NORMS = "fusion."


def split_by_decay(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The trained parameters that decay and those that don't, by name: norms, embeddings and tables.

    As in the official training, see `TABLES` and `DECAYING_NORMS`.
    """
    decayed: dict[str, nn.Parameter] = {}
    kept: dict[str, nn.Parameter] = {}
    for prefix, module in model.named_modules():
        for own, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                table = isinstance(module, nn.Embedding) or own.endswith(TABLES)
                norm = isinstance(module, NORMS) and not own.startswith(DECAYING_NORMS)
                (kept if table or norm else decayed)[own] = parameter
    return decayed, kept


def build_optimizer(model: nn.Module, config: TrainConfig) -> tuple[torch.optim.AdamW, list[str]]:
    """AdamW over what is trained, and the parameters' names in the optimiser's order.

    Each of its groups has a "factor", what `set_learning_rate` multiplies the rate with.

    Raises:
        TrainingError: nothing is trained.
    """
    rates = config.part_rates()
    groups: list[dict[str, Any]] = []
    names: list[str] = []
    for parameters, decay in zip(split_by_decay(model), (config.weight_decay, 0.0), strict=True):
        factors = {name: factor_of(name, rates) for name in parameters}
        for factor in sorted(set(factors.values()), reverse=True):
            own = [name for name in parameters if factors[name] == factor]
            groups.append(
                {"params": [parameters[name] for name in own], "weight_decay": decay, "factor": factor}
            )
            names += own
    if not groups:
        raise TrainingError("the model has no parameter that is trained")
    return torch.optim.AdamW(groups, lr=config.learning_rate), names


def learning_rate(config: TrainConfig, step: int) -> float:
    """AdamW's factor at a step, counted from 0: poly, times a linear rise in the warm-up; it has no unit."""
    rate: float = config.learning_rate * max(0.0, 1 - step / config.steps) ** config.poly_power
    if step < config.warmup_steps:
        rate *= (step + 1) / (config.warmup_steps + 1)
    return rate


def clip_gradients(optimizer: torch.optim.Optimizer, most: float) -> Tensor:
    """Shrinks the gradient of the whole model to this norm at most; returns the norm that it had."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return torch.nn.utils.clip_grad_norm_(parameters, most, error_if_nonfinite=False)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of all groups, each by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
