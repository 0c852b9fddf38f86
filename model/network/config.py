"""Sizes of everything, as frozen dataclasses, and the variants: tiny, base and large, and those with a Swin.

`build.py` is the only reader of the numbers. A configuration goes to and comes from plain JSON.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from model.errors import CheckpointError, ModelError
from model.network.balance import Balance
from model.network.json_reading import read


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig:
    """CLIP's two towers (QuickGELU in both, as OpenAI trained them)."""

    joint_width: int
    image_size: int  # pixels of the side that the position table was made for
    patch_size: int
    image_width: int
    image_layers: int
    image_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    context_length: int = 77
    text_vocabulary: int = 49408


@dataclass(frozen=True, kw_only=True, slots=True)
class SamConfig:
    """SAM's image encoder."""

    image_size: int  # pixels of the side that the position table was made for
    patch_size: int
    width: int
    layers: int
    heads: int
    window: int  # side of the local attention windows, in patches
    global_blocks: tuple[int, int, int, int]  # blocks with global attention; their outputs are used


@dataclass(frozen=True, kw_only=True, slots=True)
class SwinConfig:
    """Swin Transformer; its four stages are strides 4, 8, 16 and 32, each twice as wide as the one before."""

    width: int  # of the first stage
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int  # side of the attention windows, in tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelDecoderConfig:
    """Multi-scale deformable attention over strides 32, 16, 8 and a feature pyramid step to stride 4."""

    layers: int
    heads: int
    points: int
    feed_forward: int
    norm_groups: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerDecoderConfig:
    """Masked attention decoder."""

    layers: int
    heads: int
    queries: int
    feed_forward: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EBSegConfig:
    """One whole model.

    Attributes:
        variant: name of the configuration; part of manifests, not read by the model.
        sam, swin: the image backbone; one of the two is None.
        clip_scale: CLIP sees the padded picture shrunk by this factor.
        fused_layers: CLIP layers (counted from 1) added to strides 8, 16, 32; the last one also feeds
            the mask attention.
        surgery_start: CLIP block (counted from 0) where the surgery path begins.
        hidden: channels of both decoders.
        short_side, long_side: a picture is resized to this short side unless its long side would
            pass `long_side`; pixels.
        balance: default balancing.
    """

    variant: str
    clip: ClipConfig
    sam: SamConfig | None = None
    swin: SwinConfig | None = None
    pixel_decoder: PixelDecoderConfig
    transformer_decoder: TransformerDecoderConfig
    clip_scale: float
    fused_layers: tuple[int, int, int]
    surgery_start: int
    hidden: int
    short_side: int
    long_side: int
    balance: Balance = field(
        default_factory=lambda: Balance.geometric(frozen_trained=0.09, frozen_new=0.3, mask_attention=0.7)
    )

    def __post_init__(self) -> None:
        if (self.sam is None) == (self.swin is None):
            raise ModelError("a configuration has one image backbone: either sam or swin")

    @property
    def backbone_widths(self) -> tuple[int, int, int, int]:
        """Channels of the image backbone's maps for strides 4, 8, 16 and 32."""
        if self.swin is not None:
            width = self.swin.width
            return width, 2 * width, 4 * width, 8 * width
        assert self.sam is not None
        width = self.sam.width
        return width, width, width, width

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the backbone that the model has not is left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Any) -> "EBSegConfig":
        """The opposite of `to_dict`.

        Raises:
            CheckpointError: a field is missing, unknown or of the wrong kind; the message names it. Only a
                field that may be None may be missing.
        """
        try:
            config = read(cls, values, "config", CheckpointError, complete=True)
        except ModelError as error:
            raise CheckpointError(str(error)) from None
        assert isinstance(config, cls)
        return config


_DECODERS: dict[str, Any] = {
    "pixel_decoder": PixelDecoderConfig(layers=6, heads=8, points=4, feed_forward=1024, norm_groups=32),
    "transformer_decoder": TransformerDecoderConfig(layers=9, heads=8, queries=100, feed_forward=2048),
    "hidden": 256,
    "short_side": 640,
    "long_side": 2560,
}
_SAM_VIT_B = SamConfig(
    image_size=1024, patch_size=16, width=768, layers=12, heads=12, window=14, global_blocks=(2, 5, 8, 11)
)

_WITH_SAM: dict[str, EBSegConfig] = {
    "base": EBSegConfig(
        variant="base",
        clip=ClipConfig(
            joint_width=512,
            image_size=224,
            patch_size=16,
            image_width=768,
            image_layers=12,
            image_heads=12,
            text_width=512,
            text_layers=12,
            text_heads=8,
        ),
        sam=_SAM_VIT_B,
        clip_scale=0.5,
        fused_layers=(3, 6, 9),
        surgery_start=2,
        balance=Balance.geometric(frozen_trained=0.09, frozen_new=0.3, mask_attention=0.7),
        **_DECODERS,
    ),
    "large": EBSegConfig(
        variant="large",
        clip=ClipConfig(
            joint_width=768,
            image_size=336,
            patch_size=14,
            image_width=1024,
            image_layers=24,
            image_heads=16,
            text_width=768,
            text_layers=12,
            text_heads=12,
        ),
        sam=_SAM_VIT_B,
        clip_scale=0.7,
        fused_layers=(6, 12, 18),
        surgery_start=4,
        balance=Balance.geometric(frozen_trained=0.12, frozen_new=0.4, mask_attention=0.6),
        **_DECODERS,
    ),
    # The same architecture at a size for tests and for models trained on a laptop. It works at a short side
    # of 192 pixels: SAM sees 24 x 24 patches of them and CLIP, at two thirds, 16 x 16.
    "tiny": EBSegConfig(
        variant="tiny",
        clip=ClipConfig(
            joint_width=96,
            image_size=128,
            patch_size=8,
            image_width=128,
            image_layers=4,
            image_heads=4,
            text_width=64,
            text_layers=2,
            text_heads=2,
            context_length=32,
        ),
        sam=SamConfig(
            image_size=192, patch_size=8, width=64, layers=4, heads=2, window=7, global_blocks=(0, 1, 2, 3)
        ),
        pixel_decoder=PixelDecoderConfig(layers=2, heads=4, points=4, feed_forward=128, norm_groups=8),
        transformer_decoder=TransformerDecoderConfig(layers=4, heads=4, queries=24, feed_forward=256),
        clip_scale=2 / 3,
        fused_layers=(1, 2, 3),
        surgery_start=1,
        hidden=64,
        short_side=192,
        long_side=768,
    ),
}

# The image backbones of the paper's Table 7 beside SAM.
_SWINS = {
    # timm's swin_tiny_patch4_window7_224
    "base-swin-t": SwinConfig(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7),
    # timm's swin_base_patch4_window12_384
    "base-swin-b": SwinConfig(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=12),
    # windows of 6 come out even on all four grids of 192 pixels: 48, 24, 12 and 6 tokens a side
    "tiny-swin-t": SwinConfig(width=24, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=6),
    "tiny-swin-b": SwinConfig(width=32, depths=(2, 2, 6, 2), heads=(1, 2, 4, 8), window=6),
}

VARIANTS: dict[str, EBSegConfig] = _WITH_SAM | {
    name: dataclasses.replace(_WITH_SAM[name.partition("-")[0]], variant=name, sam=None, swin=swin)
    for name, swin in _SWINS.items()
}
