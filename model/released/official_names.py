"""Names of the official EBSeg code's tensors for ours, and what its files hold besides weights.

Most names differ by prefixes alone. An official file also holds three kinds of tensor that are not
weights of their own: copies (the mask attention's final norm and projection), constants (the text
tower's causal mask) and the loss' class weights. They are made on the way out; account.py checks them on
the way in.
"""

import re

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.network.ebseg import EBSeg

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


def causal_mask(context: int) -> Tensor:
    """CLIP's mask of the text tower, [context, context]: minus infinity above the diagonal."""
    return torch.full((context, context), float("-inf")).triu(1)
