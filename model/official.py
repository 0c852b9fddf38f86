"""Weights of the released EBSeg checkpoints to ours and back, strictly: every tensor is accounted for.

Most names differ by prefixes alone. The official file also holds three kinds of tensor that are not
weights of their own: copies (the mask attention's final norm and projection), constants (the text
tower's causal mask) and the loss' class weights. They are checked on the way in and made on the way out.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from model.build import build
from model.config import VARIANTS
from model.ebseg import EBSeg
from model.errors import CheckpointError
from model.vocabulary import TrainingClasses

NO_OBJECT_WEIGHT = 0.1
CAUSAL_MASK = "ov_classifier.attn_mask"
CLASS_WEIGHTS = "criterion.empty_weight"
COPIES = {
    f"clip_visual_extractor.{name}": f"clip_rec_head.{name}"
    for name in ("ln_post.weight", "ln_post.bias", "proj")
}

# Our prefix -> the official one; the first that matches a name is taken.
PREFIXES = {
    "backbone.": "backbone.",
    "background": "ov_classifier.bg_embed",
    "clip_text.blocks.": "ov_classifier.transformer.resblocks.",
    "clip_text.": "ov_classifier.",
    "clip_image.blocks.": "clip_visual_extractor.resblocks.",
    "clip_image.": "clip_visual_extractor.",
    "mask_attention.blocks.": "clip_rec_head.resblocks.",
    "mask_attention.": "clip_rec_head.",
    "fusion.layers.": "sem_seg_head.clip_fusion_layers.",
    "pixel_decoder.input_projections.": "sem_seg_head.pixel_decoder.input_proj.",
    "pixel_decoder.level_embed": "sem_seg_head.pixel_decoder.transformer.level_embed",
    "pixel_decoder.layers.": "sem_seg_head.pixel_decoder.transformer.encoder.layers.",
    "pixel_decoder.lateral.conv.": "sem_seg_head.pixel_decoder.adapter_1.",
    "pixel_decoder.lateral.norm.": "sem_seg_head.pixel_decoder.adapter_1.norm.",
    "pixel_decoder.output.conv.": "sem_seg_head.pixel_decoder.layer_1.",
    "pixel_decoder.output.norm.": "sem_seg_head.pixel_decoder.layer_1.norm.",
    "pixel_decoder.mask_features.": "sem_seg_head.pixel_decoder.mask_features.",
    "transformer_decoder.norm.": "sem_seg_head.predictor.decoder_norm.",
    "transformer_decoder.query_features": "sem_seg_head.predictor.query_feat.weight",
    "transformer_decoder.query_places": "sem_seg_head.predictor.query_embed.weight",
    "transformer_decoder.level_embed": "sem_seg_head.predictor.level_embed.weight",
    "transformer_decoder.pool_norm.": "sem_seg_head.predictor.pool_proj.0.",
    "transformer_decoder.pool_linear.": "sem_seg_head.predictor.pool_proj.1.",
    "transformer_decoder.class_embed.": "sem_seg_head.predictor.mask_embed1.",
    "transformer_decoder.embedding_scale": "sem_seg_head.predictor.logit_scale",
    "transformer_decoder.bias_embed.": "sem_seg_head.predictor.attn_proj.",
    "transformer_decoder.": "sem_seg_head.predictor.",
}
# Parts of one decoder layer -> the official list that holds them, and the part's name there.
DECODER_PARTS = {
    "cross_attention": ("transformer_cross_attention_layers", "multihead_attn"),
    "cross_norm": ("transformer_cross_attention_layers", "norm"),
    "self_attention": ("transformer_self_attention_layers", "self_attn"),
    "self_norm": ("transformer_self_attention_layers", "norm"),
    "linear1": ("transformer_ffn_layers", "linear1"),
    "linear2": ("transformer_ffn_layers", "linear2"),
    "feed_forward_norm": ("transformer_ffn_layers", "norm"),
}
# The official surgery blocks keep CLIP's attention weights under other names.
SURGERY_NAMES = {
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
}


def official_names(ebseg: EBSeg) -> dict[str, str]:
    """{our tensor's name: its official name}, for every tensor of the model.

    Raises:
        CheckpointError: the model's image backbone is not SAM, the only one of the official code.
    """
    if ebseg.config.swin is not None:
        raise CheckpointError(
            f"the official code has SAM as its image backbone, and the variant {ebseg.config.variant} has not"
        )
    return {name: _official_name(name, ebseg.config.surgery_start) for name in ebseg.state_dict()}


def _official_name(name: str, surgery_start: int) -> str:
    prefix = next(p for p in PREFIXES if name.startswith(p))
    rest = name.removeprefix(prefix)
    if name.startswith("transformer_decoder.layers."):
        index, part, tensor = rest.removeprefix("layers.").split(".", 2)
        layers, own_name = DECODER_PARTS[part]
        return f"{PREFIXES[prefix]}{layers}.{index}.{own_name}.{tensor}"
    if prefix in ("clip_image.blocks.", "mask_attention.blocks."):
        index, tensor = rest.split(".", 1)
        if prefix == "mask_attention.blocks." or int(index) >= surgery_start:
            rest = f"{index}.{SURGERY_NAMES.get(tensor, tensor)}"
    elif prefix in ("fusion.layers.", "pixel_decoder.input_projections."):
        order = ("norm", "conv") if prefix == "fusion.layers." else ("conv", "norm")
        rest = re.sub(r"\.(norm|conv)\.", lambda match: f".{order.index(match[1])}.", rest)
    elif prefix == "pixel_decoder.layers.":
        rest = rest.replace(".attention.", ".self_attn.")
    return PREFIXES[prefix] + rest


def load_official(
    state_dict: Mapping[str, Tensor], variant: str, training_classes: TrainingClasses | None = None
) -> EBSeg:
    """Builds the model of a released checkpoint's weights, in evaluation mode.

    Args:
        state_dict: official names to tensors, all of them.
        variant: "base" or "large" (or another of `config.VARIANTS`).
        training_classes: what it was trained on; COCO-Stuff's 171 classes when left out.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another shape or not a number, or a constant or
            copy is not what it should be; the message names the first ones.
    """
    if variant not in VARIANTS:
        raise CheckpointError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    training_classes = training_classes or TrainingClasses.coco_stuff()
    ebseg = build(VARIANTS[variant], training_classes, seed=None)
    shapes = {name: tensor.shape for name, tensor in ebseg.state_dict().items()}
    names = official_names(ebseg)
    wanted = {official: shapes[ours] for ours, official in names.items()}
    wanted |= {copy: wanted[original] for copy, original in COPIES.items()}
    context = VARIANTS[variant].clip.context_length
    wanted[CAUSAL_MASK] = torch.Size([context, context])
    wanted[CLASS_WEIGHTS] = torch.Size([len(training_classes.classes) + 1])
    check_tensors(state_dict, wanted)
    for copy, original in COPIES.items():
        if not torch.equal(state_dict[copy], state_dict[original]):
            raise CheckpointError(f"tensor {copy} is not the copy of {original} that it should be")
    if not torch.equal(state_dict[CAUSAL_MASK].float(), _causal_mask(context)):
        raise CheckpointError(f"tensor {CAUSAL_MASK} is not a causal mask")
    tensors = {ours: state_dict[official].detach().float() for ours, official in names.items()}
    for ours, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"tensor {names[ours]} holds values that are not finite")
    trained = {name for name, parameter in ebseg.named_parameters() if parameter.requires_grad}
    ebseg.load_state_dict(tensors, strict=True, assign=True)
    for name, parameter in ebseg.named_parameters():
        parameter.requires_grad_(name in trained)
    return ebseg


def to_official(ebseg: EBSeg) -> dict[str, Tensor]:
    """The state dict that the official code loads, float32 on the CPU."""
    ours = ebseg.state_dict()
    tensors = {
        official: ours[name].detach().float().cpu() for name, official in official_names(ebseg).items()
    }
    tensors |= {copy: tensors[original] for copy, original in COPIES.items()}
    tensors[CAUSAL_MASK] = _causal_mask(ebseg.config.clip.context_length)
    weights = torch.ones(len(ebseg.training_classes.classes) + 1)
    weights[-1] = NO_OBJECT_WEIGHT
    tensors[CLASS_WEIGHTS] = weights
    return tensors


def _causal_mask(context: int) -> Tensor:
    return torch.full((context, context), float("-inf")).triu(1)


def check_tensors(state_dict: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> None:
    """Raises CheckpointError unless the names and shapes are the wanted ones; it names the first misfits."""
    missing = [name for name in wanted if name not in state_dict]
    extra = [name for name in state_dict if name not in wanted]
    misshapen = [
        f"{name} is {list(state_dict[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in state_dict and state_dict[name].shape != shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        for what, found in (("missing", missing), ("unknown", extra), ("misshapen", misshapen))
        if found
    ]
    if problems:
        raise CheckpointError(f"tensors do not fit the variant; {'; '.join(problems)}")
