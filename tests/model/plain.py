"""EBSeg written down plainly: what the fast code has to equal.

Every formula stands here as one would tell it, in float64: all heads at all stages, all attention rows
at once under one additive mask, whole maps resized before anything is done with them, loops where the
fast code has tables. Nothing of the model's code is used, only its weights, by name. The encoders are in
plain_encoders.py.

Shape suffixes: B pictures, N tokens, C channels, h heads, D channels of a head, Q queries.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model import EBSeg
from tests.model.plain_encoders import PlainEncoders, Size, as_map, bilinear, sizes, unit


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Outputs of one decoder stage; `bias` is the attention bias on the CLIP grid, [B, h, Q, pixels]."""

    mask_logits: Tensor
    supervised: Tensor
    bias: Tensor
    mask_attention: Tensor
    frozen: Tensor


class Plain(PlainEncoders):
    """The whole model, slowly.

    Attributes:
        margin: how near a mask logit has come to the threshold 0, relative to the largest: a pixel that
            is nearer than rounding may lie on another side in float32.
    """

    def __init__(self, ebseg: EBSeg):
        super().__init__(ebseg)
        self.margin = math.inf

    def fused(self, backbone: list[Tensor], clip: list[Tensor], padded: Size) -> list[Tensor]:
        """Maps of strides 4, 8, 16, 32."""
        maps = []
        for i, x in enumerate(backbone):
            size = (padded[0] // 2 ** (i + 2), padded[1] // 2 ** (i + 2))
            x = bilinear(x, size)
            if i:
                y = self.norm(clip[i - 1].permute(0, 2, 3, 1), f"fusion.layers.{i - 1}.norm", 1e-6)
                x = x + bilinear(self.conv(y.permute(0, 3, 1, 2), f"fusion.layers.{i - 1}.conv"), size)
            maps.append(x)
        return maps

    def pixel_decoder(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps of strides 32, 16, 8, and mask features."""
        config = self.config.pixel_decoder
        levels, places = [], []
        for i, x in enumerate(maps[:0:-1]):
            name = f"pixel_decoder.input_projections.{i}"
            levels.append(self.group_norm(self.conv(x, f"{name}.conv"), f"{name}.norm"))
            place = sine(*sizes(x), self.config.hidden)
            places.append(place + self.weights["pixel_decoder.level_embed"][i])
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        place = torch.cat(places)
        extents = [sizes(level) for level in levels]
        for i in range(config.layers):
            name = f"pixel_decoder.layers.{i}"
            shape = (*x.shape[:2], config.heads, len(levels), config.points)
            offsets = self.linear(x + place, f"{name}.attention.sampling_offsets").view(*shape, 2)
            weights = self.linear(x + place, f"{name}.attention.attention_weights").view(*shape[:3], -1)
            value = self.linear(x, f"{name}.attention.value_proj")
            sampled = deformed(value, offsets, weights.softmax(-1).view(shape), extents)
            x = self.norm(x + self.linear(sampled, f"{name}.attention.output_proj"), f"{name}.norm1")
            hidden = self.linear(x, f"{name}.linear1").relu()
            x = self.norm(x + self.linear(hidden, f"{name}.linear2"), f"{name}.norm2")
        refined = [as_map(y, extent) for y, extent in zip(by_level(x, extents), extents, strict=True)]
        lateral = self.group_norm(
            self.conv(maps[0], "pixel_decoder.lateral.conv"), "pixel_decoder.lateral.norm"
        )
        y = self.conv(lateral + bilinear(refined[-1], sizes(lateral)), "pixel_decoder.output.conv", padding=1)
        y = self.group_norm(y, "pixel_decoder.output.norm").relu()
        return refined, self.conv(y, "pixel_decoder.mask_features")

    def decoder(self, maps: list[Tensor], mask_features: Tensor) -> list[Tensor]:
        """Normed queries before and after every layer; masks are made at full size, then resized."""
        config = self.config.transformer_decoder
        place = self.weights["transformer_decoder.query_places"]
        x = self.weights["transformer_decoder.query_features"].expand(len(mask_features), -1, -1)
        stages = [self.norm(x, "transformer_decoder.norm")]
        for i in range(config.layers):
            name = f"transformer_decoder.layers.{i}"
            level = maps[i % 3]
            small = bilinear(self.masks(stages[-1], mask_features), sizes(level)).flatten(2)
            unseen = self.outside(small)
            unseen = unseen & ~unseen.all(-1, keepdim=True)
            mask = torch.zeros_like(small).masked_fill(unseen, -math.inf)[:, None]
            pixels = level.flatten(2).transpose(1, 2) + self.weights["transformer_decoder.level_embed"][i % 3]
            placed = pixels + sine(*sizes(level), self.config.hidden)
            out = self.attention(x + place, placed, pixels, f"{name}.cross_attention", mask)
            x = self.norm(x + out, f"{name}.cross_norm")
            out = self.attention(x + place, x + place, x, f"{name}.self_attention", None)
            x = self.norm(x + out, f"{name}.self_norm")
            out = self.linear(self.linear(x, f"{name}.linear1").relu(), f"{name}.linear2")
            x = self.norm(x + out, f"{name}.feed_forward_norm")
            stages.append(self.norm(x, "transformer_decoder.norm"))
        return stages

    def attention(self, q: Tensor, k: Tensor, v: Tensor, name: str, mask: Tensor | None) -> Tensor:
        q, k, v = (
            x @ weight.T + bias for x, (weight, bias) in zip((q, k, v), self.packed(name), strict=True)
        )
        out = self.multi_head(q, k, v, self.config.transformer_decoder.heads, mask)
        return self.linear(out, f"{name}.out_proj")

    def masks(self, normed: Tensor, mask_features: Tensor) -> Tensor:
        """[B, Q, rows, columns]."""
        embeddings = self.mlp(normed, "transformer_decoder.mask_embed")
        return torch.einsum("bqc,bcyx->bqyx", embeddings, mask_features)

    def outside(self, logits: Tensor) -> Tensor:
        """Where a mask is not, and on the side how near to its edge a pixel has come."""
        self.margin = min(self.margin, float(logits.abs().min() / logits.abs().max()))
        return logits.sigmoid() < 0.5

    def supervised(self, normed: Tensor, masks: Tensor, mask_features: Tensor) -> Tensor:
        """A: the mean mask feature inside each mask, added to the query."""
        inside = (~self.outside(masks)).double()
        total = torch.einsum("bqyx,bcyx->bqc", inside, mask_features)
        pooled = total / (inside.sum((2, 3))[..., None] + 1e-8)
        pooled = self.linear(
            self.norm(pooled, "transformer_decoder.pool_norm"), "transformer_decoder.pool_linear"
        )
        out = self.mlp(pooled + normed, "transformer_decoder.class_embed")
        scale = self.weights["transformer_decoder.embedding_scale"].clamp(max=10)
        supervised: Tensor = scale * unit(out)
        return supervised

    def attention_bias(self, normed: Tensor, mask_features: Tensor, grid: Size) -> Tensor:
        """[B, h, Q, pixels]: heads x C channels a pixel, times the mask embedding, scaled, max-pooled."""
        embeddings = self.mlp(normed, "transformer_decoder.mask_embed")
        channels = self.mlp(mask_features.permute(0, 2, 3, 1), "transformer_decoder.bias_embed")
        by_head = channels.reshape(*channels.shape[:3], self.config.clip.image_heads, -1)
        bias = torch.einsum("bqc,byxhc->bhqyx", embeddings, by_head)
        scaled = self.linear(bias[..., None], "transformer_decoder.bias_scaling")[..., 0]
        return torch.stack([F.adaptive_max_pool2d(x, grid).flatten(2) for x in scaled.unbind(1)], 1)

    def stages(self, images: Tensor) -> list[Stage]:
        """Everything that there is at all stages."""
        padded = self.input(images, "sam")
        backbone = self.sam(padded)
        layers, tokens, surgery, grid = self.clip(self.input(images, "clip"))
        maps, mask_features = self.pixel_decoder(self.fused(backbone, layers, sizes(padded)))
        stages = []
        for normed in self.decoder(maps, mask_features):
            masks = self.masks(normed, mask_features)
            bias = self.attention_bias(normed, mask_features, grid)
            embeddings, f_clip = self.mask_attention(tokens, surgery, grid, bias)
            inside = (~self.outside(bilinear(masks, grid))).double()
            total = torch.einsum("bqyx,bcyx->bqc", inside, f_clip)
            stages.append(
                Stage(
                    mask_logits=masks,
                    supervised=self.supervised(normed, masks, mask_features),
                    bias=bias,
                    mask_attention=embeddings,
                    frozen=total / (inside.sum((2, 3))[..., None] + 1e-8),
                )
            )
        return stages


def by_level(x_BNC: Tensor, extents: list[Size]) -> list[Tensor]:
    """Tokens of all levels -> tokens of each level."""
    return list(torch.split(x_BNC, [rows * columns for rows, columns in extents], 1))


def sine(height: int, width: int, channels: int) -> Tensor:
    """Sine encoding number by number, [height * width, channels]."""
    half = channels // 2
    out = torch.zeros(height, width, channels, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for axis, (place, extent) in enumerate([(y, height), (x, width)]):
                angle = (place + 1) / (extent + 1e-6) * 2 * math.pi
                for i in range(half):
                    wave = math.cos if i % 2 else math.sin
                    out[y, x, axis * half + i] = wave(angle / 10_000 ** (2 * (i // 2) / half))
    return out.flatten(0, 1)


def deformed(value_BNC: Tensor, offsets: Tensor, weights: Tensor, extents: list[Size]) -> Tensor:
    """Deformable attention's sum by `grid_sample`, head by head and level by level, [B, N, C].

    Args:
        value_BNC: tokens of all levels.
        offsets: from each token's own place, in pixels of the level looked at, [B, N, h, levels, points, 2].
        weights: [B, N, h, levels, points].
        extents: of the levels.
    """
    centres = []
    for rows, columns in extents:
        y, x = torch.meshgrid(
            (torch.arange(rows, dtype=value_BNC.dtype) + 0.5) / rows,
            (torch.arange(columns, dtype=value_BNC.dtype) + 0.5) / columns,
            indexing="ij",
        )
        centres.append(torch.stack([x, y], -1).flatten(0, 1))
    reference = torch.cat(centres)[None, :, None]
    heads = offsets.shape[2]
    out = []
    for head in range(heads):
        total = torch.zeros_like(value_BNC.chunk(heads, -1)[head])
        for i, (level, (rows, columns)) in enumerate(zip(by_level(value_BNC, extents), extents, strict=True)):
            picture = as_map(level.chunk(heads, -1)[head], (rows, columns))
            extent = torch.tensor([columns, rows], dtype=value_BNC.dtype)
            places = reference + offsets[:, :, head, i] / extent
            sampled = F.grid_sample(picture, 2 * places - 1, padding_mode="zeros", align_corners=False)
            total = total + (sampled * weights[:, :, head, i][:, None]).sum(-1).transpose(1, 2)
        out.append(total)
    return torch.cat(out, -1)


def score_maps(mask_logits: Tensor, probabilities: Tensor, image_size: Size, output_size: Size) -> Tensor:
    """Scores of one picture: masks resized to the padded picture, cropped, resized, and summed up.

    Args:
        mask_logits: of stride 4, [Q, rows, columns].
        probabilities: of classes, [Q, K].
        image_size: before padding.
        output_size: of the scores.

    Returns:
        [K, *output_size].
    """
    padded = (4 * mask_logits.shape[1], 4 * mask_logits.shape[2])
    cropped = bilinear(mask_logits[None].double(), padded)[:, :, : image_size[0], : image_size[1]]
    masks = bilinear(cropped, output_size).sigmoid()[0]
    return torch.einsum("qk,qyx->kyx", probabilities.double(), masks)
