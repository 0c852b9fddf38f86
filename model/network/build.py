"""From a configuration to wired modules. The only place that turns its numbers into components."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from model.network.clip_image import ClipImageEncoder
from model.network.clip_text import ClipTextEncoder
from model.network.config import ClipConfig, EBSegConfig, SamConfig, SwinConfig
from model.network.deformable_attention import DeformableAttention
from model.network.ebseg import EBSeg
from model.network.fusion import Fusion
from model.network.layers import SineEncoding
from model.network.libraries.open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from model.network.libraries.segment_anything.image_encoder import ImageEncoderViT
from model.network.mask_attention import MaskAttention
from model.network.pixel_decoder import PixelDecoder
from model.network.sam_encoder import SamEncoder
from model.network.tokenizer import clip_tokenizer
from model.network.transformer_decoder import Attention, TransformerDecoder
from model.vocabulary.classes import TrainingClasses

if TYPE_CHECKING:
    from model.network.swin_encoder import SwinEncoder

CLIP_MLP_RATIO = 4.0
SAM_NORM_EPSILON = 1e-6
LOGIT_SCALE = math.log(100)  # where OpenAI's CLIP ended


def build(config: EBSegConfig, training_classes: TrainingClasses, *, seed: int | None) -> EBSeg:
    """Builds the model of a configuration, in evaluation mode, float32.

    Args:
        config: its sizes.
        training_classes: the classes that the weights were, or will be, trained on.
        seed: of the random weights; the same seed gives the same weights. None builds without memory,
            on the "meta" device, for `load_state_dict(..., assign=True)`.
    """
    if seed is None:
        with torch.device("meta"), _NoRandomNumbers():
            return _wire(config, training_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _wire(config, training_classes)
        _initialise(model)
    return model


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out first values that nobody will see.

    On the "meta" device normal distributions and products are written in Python, and import torch's compiler,
    which takes longer than torch itself. So `nn.init.normal_` does nothing, and `torch.randn`, whose result
    open_clip goes on to scale, gives zeros on the CPU: CLIP's class token and position table, small ones.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            return torch.zeros(*args, **{"device": "cpu", **kwargs})
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **kwargs)


def _wire(config: EBSegConfig, training_classes: TrainingClasses) -> EBSeg:
    logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
    clip_image, mask_attention = image_parts(_vision_transformer(config.clip), config)
    clip_text = _text_encoder(_text_transformer(config.clip), logit_scale)
    decoder = config.transformer_decoder
    pixel = config.pixel_decoder
    encoding = SineEncoding(config.hidden)
    model = EBSeg(
        config=config,
        training_classes=training_classes,
        backbone=_backbone(config),
        clip_image=clip_image,
        clip_text=clip_text,
        fusion=Fusion(clip_width=config.clip.image_width, widths=config.backbone_widths[1:]),
        pixel_decoder=PixelDecoder(
            widths=config.backbone_widths,
            channels=config.hidden,
            layers=pixel.layers,
            heads=pixel.heads,
            points=pixel.points,
            feed_forward=pixel.feed_forward,
            norm_groups=pixel.norm_groups,
            encoding=encoding,
        ),
        transformer_decoder=TransformerDecoder(
            channels=config.hidden,
            joint_width=config.clip.joint_width,
            clip_heads=config.clip.image_heads,
            layers=decoder.layers,
            heads=decoder.heads,
            queries=decoder.queries,
            feed_forward=decoder.feed_forward,
            encoding=encoding,
        ),
        mask_attention=mask_attention,
        background=nn.Parameter(torch.empty(1, config.clip.joint_width)),
    )
    for frozen in (clip_image, clip_text, mask_attention, model.backbone):
        frozen.requires_grad_(False)
    clip_image.positional_embedding.requires_grad_(True)
    if isinstance(model.backbone, SamEncoder):
        model.backbone.pos_embed.requires_grad_(True)
    return model.eval()


def image_parts(tower: Any, config: EBSegConfig) -> tuple[ClipImageEncoder, MaskAttention]:
    """An open_clip `VisionTransformer`, taken apart: the last fused layer is where the mask attention begins.

    The parts share their weights with it.
    """
    split = config.fused_layers[-1]
    image = ClipImageEncoder(
        conv1=tower.conv1,
        class_embedding=tower.class_embedding,
        positional_embedding=tower.positional_embedding,
        ln_pre=tower.ln_pre,
        blocks=tower.transformer.resblocks[:split],
        kept_layers=config.fused_layers,
        surgery_start=config.surgery_start,
    )
    attention = MaskAttention(
        blocks=tower.transformer.resblocks[split:], ln_post=tower.ln_post, proj=tower.proj
    )
    return image, attention


def _vision_transformer(config: ClipConfig) -> Any:
    return VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.image_width,
        layers=config.image_layers,
        heads=config.image_heads,
        mlp_ratio=CLIP_MLP_RATIO,
        output_dim=config.joint_width,
        act_layer=QuickGELU,
    )


def _text_transformer(config: ClipConfig) -> Any:
    return TextTransformer(
        context_length=config.context_length,
        vocab_size=config.text_vocabulary,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
        mlp_ratio=CLIP_MLP_RATIO,
        output_dim=config.joint_width,
        no_causal_mask=True,  # `ClipTextEncoder` has its own
        act_layer=QuickGELU,
    )


def _text_encoder(tower: Any, logit_scale: nn.Parameter) -> ClipTextEncoder:
    return ClipTextEncoder(
        token_embedding=tower.token_embedding,
        positional_embedding=tower.positional_embedding,
        blocks=tower.transformer.resblocks,
        ln_final=tower.ln_final,
        text_projection=tower.text_projection,
        logit_scale=logit_scale,
        tokenizer=clip_tokenizer(),
    )


def _backbone(config: EBSegConfig) -> "SamEncoder | SwinEncoder":
    if config.swin is not None:
        return _swin(config.swin)
    assert config.sam is not None
    return _sam(config.sam)


def _sam(config: SamConfig) -> SamEncoder:
    """segment_anything's encoder without its neck."""
    tower = ImageEncoderViT(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.layers,
        num_heads=config.heads,
        norm_layer=_sam_norm,
        use_rel_pos=True,
        window_size=config.window,
        global_attn_indexes=config.global_blocks,
    )
    return SamEncoder(
        patch_embed=tower.patch_embed,
        pos_embed=tower.pos_embed,
        blocks=tower.blocks,
        global_blocks=config.global_blocks,
    )


def _sam_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=SAM_NORM_EPSILON)


def _swin(config: SwinConfig) -> "SwinEncoder":
    """timm's Swin without its last norm and classifier, and without stochastic depth."""
    from timm.models.swin_transformer import SwinTransformer  # timm takes long to import

    from model.network.swin_encoder import SwinEncoder

    tower = SwinTransformer(
        num_classes=0,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.heads,
        window_size=config.window,
        always_partition=True,  # windows and shifts are those of the configuration on any grid
        strict_img_size=False,
        drop_path_rate=0.0,
    )
    return SwinEncoder(patch_embed=tower.patch_embed, layers=tower.layers, window=config.window)


@torch.no_grad()
def _initialise(model: EBSeg) -> None:
    """First values of what comes after the encoders, as in the official training; theirs set their packages.

    Layers of both decoders and the projections to the pixel decoder are Xavier's, the pixel decoder's other
    convolutions Caffe2's form of it. Deformable attention starts as its paper says: each head looks in its
    own direction, each point one pixel further, all with equal weight. Tables are normal. All else keeps
    torch's own first values: the queries' heads, their pooling, the scale of the biases, and the fusion.
    """
    if isinstance(model.backbone, SamEncoder):
        nn.init.trunc_normal_(model.backbone.pos_embed, std=0.02)
    nn.init.normal_(model.background, std=model.background.shape[1] ** -0.5)
    pixel, decoder = model.pixel_decoder, model.transformer_decoder
    for layers in (pixel.layers, pixel.input_projections, decoder.layers):
        for parameter in layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in layers.modules():
            if isinstance(module, DeformableAttention):
                _initialise_deformable(module)
            elif isinstance(module, Attention):
                nn.init.zeros_(module.in_proj_bias)
                nn.init.zeros_(module.out_proj.bias)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
    for convolution in (pixel.lateral.conv, pixel.output.conv, pixel.mask_features):
        nn.init.kaiming_uniform_(convolution.weight, a=1)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    for table in (
        model.pixel_decoder.level_embed,
        decoder.level_embed,
        decoder.query_features,
        decoder.query_places,
    ):
        nn.init.normal_(table)


def _initialise_deformable(module: DeformableAttention) -> None:
    angle = torch.arange(module.heads) * (2 * math.pi / module.heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    reach = torch.arange(1, module.points + 1)
    offsets = direction[:, None, None] * reach[:, None]
    nn.init.zeros_(module.sampling_offsets.weight)
    for linear in (module.attention_weights, module.value_proj, module.output_proj):
        nn.init.zeros_(linear.bias)
    nn.init.zeros_(module.attention_weights.weight)
    module.sampling_offsets.bias.copy_(offsets.expand(-1, module.levels, -1, -1).flatten())
