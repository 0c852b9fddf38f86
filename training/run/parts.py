"""What of a model is trained, and how fast: parts are frozen, or have a rate of their own."""

from collections.abc import Mapping

from torch import nn

from model.network.ebseg import EBSeg
from model.network.sam_encoder import SamEncoder
from training.config import TrainConfig
from training.errors import TrainingError
from training.run.lora import install

CLIP_IMAGE = ("clip_image", "mask_attention")  # together they are CLIP's image tower
TEXT = "clip_text"


def prepare(ebseg: EBSeg, config: TrainConfig) -> None:
    """Sets a model up for a run: low-rank updates, what is trained, what is computed twice.

    Raises:
        TrainingError: a part of `rates` is none of the model, or is never trained; or something else of the
            run does not go with the model.
    """
    if config.lora_rank:
        install(ebseg, config.lora_rank, config.seed)
    if config.train_backbone:
        ebseg.backbone.requires_grad_(True)
    rates = config.part_rates()
    if config.rates:
        _refuse_unknown(ebseg, rates)
    for name, parameter in ebseg.named_parameters():
        part = part_of(name, rates)
        if part is not None:
            parameter.requires_grad_(rates[part] > 0)
    if config.activation_checkpointing:
        if not isinstance(ebseg.backbone, SamEncoder):
            raise TrainingError(
                "activation_checkpointing is of SAM's blocks; this model has another backbone"
            )
        ebseg.backbone.recompute = True


def part_of(name: str, rates: Mapping[str, float]) -> str | None:
    """The part that a parameter belongs to, the longest of several; None where none has a rate."""
    parts = [part for part in rates if name == part or name.startswith(part + ".")]
    return max(parts, key=len, default=None)


def factor_of(name: str, rates: Mapping[str, float]) -> float:
    """What the learning rate is multiplied with for a parameter."""
    part = part_of(name, rates)
    return 1.0 if part is None else rates[part]


def _refuse_unknown(ebseg: nn.Module, rates: Mapping[str, float]) -> None:
    names = [name for name, _ in ebseg.named_parameters()]
    for part, rate in rates.items():
        if not any(part_of(name, {part: rate}) for name in names):
            tops = dict.fromkeys(name.partition(".")[0] for name in names)
            raise TrainingError(
                f"rates: the model has no part {part!r}; it has {', '.join(tops)}, and parts of them"
            )
        if rate and (part == TEXT or part.startswith(TEXT + ".")):
            raise TrainingError(
                "rates: clip_text is never trained: class names are embedded once, at the start"
            )
        if rate and hasattr(ebseg, "lora") and part.partition(".")[0] in CLIP_IMAGE:
            raise TrainingError(f"rates: {part} is trained by lora_rank already; leave one of the two out")
