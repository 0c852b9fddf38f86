"""The weights and pictures behind the golden tensors, made anew instead of kept.

The golden tensors were taken from the official implementation, filled with values that depend on each
tensor's official name and shape alone. The same rule gives the same 262 M (base) or 542 M (large) values
here; `official_tensors_*.json` lists names, shapes and types.
"""

import hashlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).parent
# The recognition head's norm and projection are those of the extractor.
COPY, ORIGINAL = "clip_rec_head.", "clip_visual_extractor."
COPIED = ("ln_post.weight", "ln_post.bias", "proj")
LOGIT_SCALE = 4.6052  # the logarithm of 100, to the digits that the golden run had
NO_OBJECT_WEIGHT = 0.1


def official_shapes(variant: str) -> dict[str, list[int]]:
    """Official name and shape of every tensor of "base" or "large"."""
    listed = json.loads((FOLDER / f"official_tensors_{variant}.json").read_text(encoding="utf-8"))
    return {name: shape for name, (shape, _) in listed.items()}


def official_state_dict(variant: str) -> dict[str, Tensor]:
    """Official names and values of "base" or "large", float32."""
    return {name: values(_original(name), shape) for name, shape in official_shapes(variant).items()}


def picture(height: int, width: int, phase: float) -> Tensor:
    """Smooth waves, uint8 [3, height, width]."""
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)
    channels = []
    for c, (down, across) in enumerate([(0.031, 0.017), (0.011, 0.043), (0.023, 0.029)]):
        slow = torch.sin(y * down * (1 + c) + phase) * torch.cos(x * across + 0.7 * c + phase)
        channels.append(slow + 0.35 * torch.sin((x + 2 * y) * 0.11 + c))
    unit = torch.stack(channels) / 1.35
    return ((unit * 0.5 + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)


def values(name: str, shape: list[int]) -> Tensor:
    """The values of one tensor."""
    leaf = name.rsplit(".", 1)[-1]
    size = math.prod(shape)
    if name == "ov_classifier.attn_mask":
        return torch.full(shape, -math.inf).triu(1)
    if name == "criterion.empty_weight":
        return torch.tensor([1.0] * (size - 1) + [NO_OBJECT_WEIGHT])
    if name == "ov_classifier.logit_scale":
        return torch.tensor(LOGIT_SCALE)
    if size == 1:
        return torch.full(shape, 0.0 if leaf == "bias" else 4.0)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if "query_" in name or "token_embedding" in name:
        return noise
    if len(shape) == 1:
        return 1 + 0.1 * noise if leaf == "weight" else 0.02 * noise
    if "embed" in leaf or "level_embed" in name or "rel_pos" in name:
        return 0.1 * noise
    inputs = shape[0] if leaf in ("proj", "text_projection") else size // shape[0]
    return _gain(name) * noise / math.sqrt(inputs)


def _gain(name: str) -> float:
    """Random weights make all queries and all classes much alike; this keeps them apart."""
    if name.startswith("ov_classifier.transformer") and name.endswith("attn.out_proj.weight"):
        return 8.0
    if name.startswith(COPY) and name.endswith("attn.proj.weight"):
        return 6.0
    if name.startswith("sem_seg_head.predictor.transformer_") and name.endswith(
        ("out_proj.weight", "linear2.weight")
    ):
        return 0.2
    return 1.0


def _original(name: str) -> str:
    tensor = name.removeprefix(COPY)
    return ORIGINAL + tensor if name.startswith(COPY) and tensor in COPIED else name
