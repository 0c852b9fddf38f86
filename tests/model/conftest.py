import dataclasses

import pytest
import torch

from model import VARIANTS, EBSeg, EBSegConfig, TrainingClasses
from model.network.build import build
from model.network.config import SamConfig, TransformerDecoderConfig


@pytest.fixture(scope="session")
def tiny() -> EBSeg:
    """The variant tiny with the weights that `build` gives it."""
    return build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)


@pytest.fixture(scope="session")
def uneven_config() -> EBSegConfig:
    """As small as tiny, and with what tiny has not: local windows that do not fill the grid, a CLIP
    scale that no size comes out even with, all nine decoder layers, and as few queries as will do.

    All of its encoders' and decoder's sizes stand here, so that its numbers stay when tiny changes.
    """
    tiny = VARIANTS["tiny"]
    return dataclasses.replace(
        tiny,
        clip=dataclasses.replace(tiny.clip, image_layers=8, text_layers=4, text_width=96, text_heads=4),
        sam=SamConfig(
            image_size=256, patch_size=16, width=96, layers=6, heads=4, window=5, global_blocks=(1, 2, 4, 5)
        ),
        transformer_decoder=TransformerDecoderConfig(layers=9, heads=4, queries=12, feed_forward=256),
        clip_scale=0.7,
        fused_layers=(2, 4, 6),
    )


@pytest.fixture(scope="session")
def uneven(uneven_config: EBSegConfig) -> EBSeg:
    """`uneven_config` with weights of which none is zero, as training would leave them."""
    return rough(build(uneven_config, TrainingClasses.coco_stuff(), seed=0))


@torch.no_grad()
def rough(ebseg: EBSeg) -> EBSeg:
    """Moves every parameter away from the value that it starts with, and queries away from each other."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in ebseg.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.startswith(("clip_image.blocks", "mask_attention.blocks")) and parameter.dim() == 2:
            gain = 4 if "mask_attention" in name and "out_proj" in name else 1
            parameter.copy_(gain * noise / parameter.shape[1] ** 0.5)
        elif parameter.dim() == 1 or not parameter.any():
            parameter.add_(0.1 * noise)
        elif name.startswith("transformer_decoder.layers") and ("out_proj" in name or "linear2" in name):
            parameter.mul_(0.3)
    ebseg.transformer_decoder.embedding_scale.fill_(4.0)
    # negative, so that scaling before pooling is not scaling after it
    ebseg.transformer_decoder.bias_scaling.weight.fill_(-6.0)
    return ebseg
