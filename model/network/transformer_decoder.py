"""Masked-attention transformer decoder (Mask2Former's) and the heads that read its queries.

Shape suffixes: B pictures, Q queries, N pixels of a level, C hidden channels, h CLIP heads.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.layers import (
    LEVELS,
    MLP,
    SineEncoding,
    at_least_float32,
    join_heads,
    resize,
    split_heads,
)

LARGEST_EMBEDDING_SCALE = 10.0


class Attention(nn.Module):
    """Multi-head attention with torch's packed projection weights."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * channels))
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, Q, C] over [B, N, C]; `seen`, bool [B, 1, Q, N], is true where a query may look."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            split_heads(F.linear(x, weight, bias), self.heads)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        out: Tensor = self.out_proj(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)))
        return out


class DecoderLayer(nn.Module):
    """Cross attention, self attention, feed-forward, each followed by its norm."""

    def __init__(self, *, channels: int, heads: int, feed_forward: int):
        super().__init__()
        self.cross_attention = Attention(channels, heads)
        self.cross_norm = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, heads)
        self.self_norm = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, feed_forward)
        self.linear2 = nn.Linear(feed_forward, channels)
        self.feed_forward_norm = nn.LayerNorm(channels)

    def forward(
        self, x_BQC: Tensor, place_QC: Tensor, pixels_BNC: Tensor, position_NC: Tensor, seen: Tensor
    ) -> Tensor:
        """Queries after looking at the pixels that they may see (bool [B, 1, Q, N]), [B, Q, C]."""
        looked = self.cross_attention(x_BQC + place_QC, pixels_BNC + position_NC, pixels_BNC, seen)
        x = self.cross_norm(x_BQC + looked)
        placed = x + place_QC
        x = self.self_norm(x + self.self_attention(placed, placed, x))
        out: Tensor = self.feed_forward_norm(x + self.linear2(F.relu(self.linear1(x), inplace=True)))
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryOutputs:
    """What the heads read from the queries of one stage.

    Attributes:
        mask_logits: [B, Q, H / 4, W / 4], float32.
        supervised: fully supervised embeddings A, [B, Q, joint width], float32.
        mask_embeddings: the queries' mask embeddings, [B, Q, C]; the attention bias is made of them.
    """

    mask_logits: Tensor
    supervised: Tensor
    mask_embeddings: Tensor


class TransformerDecoder(nn.Module):
    """Queries that look at the pixel decoder's levels in turn, coarse to fine.

    Args:
        channels: hidden channels of both decoders.
        joint_width: of CLIP.
        clip_heads: attention heads of CLIP's image tower; each gets a bias of its own.
        layers, heads, queries, feed_forward: see `TransformerDecoderConfig`.
        encoding: of the pixels' places, for so many channels.
    """

    def __init__(
        self,
        *,
        channels: int,
        joint_width: int,
        clip_heads: int,
        layers: int,
        heads: int,
        queries: int,
        feed_forward: int,
        encoding: SineEncoding,
    ):
        super().__init__()
        self.encoding = encoding
        self.clip_heads = clip_heads
        self.layers = nn.ModuleList(
            DecoderLayer(channels=channels, heads=heads, feed_forward=feed_forward) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.query_features = nn.Parameter(torch.empty(queries, channels))
        self.query_places = nn.Parameter(torch.empty(queries, channels))
        self.level_embed = nn.Parameter(torch.empty(LEVELS, channels))
        self.mask_embed = MLP([channels, channels, channels, channels])
        self.pool_norm = nn.LayerNorm(channels)
        self.pool_linear = nn.Linear(channels, channels)
        self.class_embed = MLP([channels, channels, channels, joint_width])
        self.embedding_scale = nn.Parameter(torch.ones([]))
        self.bias_embed = MLP([channels, channels, channels, channels * clip_heads])
        self.bias_scaling = nn.Linear(1, 1)

    def forward(self, maps: list[Tensor], mask_features: Tensor, all_stages: bool) -> list[Tensor]:
        """Runs the layers.

        Args:
            maps: pixel decoder levels of strides 32, 16, 8, [B, C, H, W].
            mask_features: of stride 4.
            all_stages: give the queries before and after every layer (training), or the last only.

        Returns:
            Normed queries, [B, Q, C] a stage.
        """
        dtype = self.query_features.dtype
        pixels, positions, small_features = [], [], []
        for x, embedding in zip(maps, self.level_embed, strict=True):
            rows, columns = x.shape[-2:]
            pixels.append(x.flatten(2).transpose(1, 2).to(dtype) + embedding)
            positions.append(self.encoding((rows, columns), x.device).to(dtype))
            # Resizing commutes with the product, so the features shrink once instead of every mask.
            small_features.append(resize(mask_features, (rows, columns)).flatten(2))
        x_BQC = self.query_features.expand(mask_features.shape[0], -1, -1)
        normed = self.norm(x_BQC)
        stages = [normed]
        for i, layer in enumerate(self.layers):
            level = i % LEVELS
            seen = self._seen(normed, small_features[level])
            x_BQC = layer(x_BQC, self.query_places, pixels[level], positions[level], seen)
            normed = self.norm(x_BQC)
            stages.append(normed)
        return stages if all_stages else stages[-1:]

    def read(self, normed_BQC: Tensor, mask_features: Tensor) -> QueryOutputs:
        """Masks and fully supervised embeddings of one stage's queries (section 3.3, Eq. 2)."""
        embeddings = self.mask_embed(normed_BQC)
        features = mask_features.flatten(2)
        mask_logits = at_least_float32(embeddings) @ features
        inside = (mask_logits.detach() > 0).to(features.dtype)
        pooled = inside @ features.transpose(1, 2) / (inside.sum(-1, keepdim=True) + 1e-8)
        pooled = self.pool_linear(self.pool_norm(pooled.to(normed_BQC.dtype)))
        direction = F.normalize(at_least_float32(self.class_embed(pooled + normed_BQC)), dim=-1)
        scale = at_least_float32(self.embedding_scale).clamp(max=LARGEST_EMBEDDING_SCALE)
        return QueryOutputs(
            mask_logits=mask_logits.unflatten(2, mask_features.shape[-2:]),
            supervised=scale * direction,
            mask_embeddings=embeddings,
        )

    def bias_features(self, mask_features: Tensor) -> Tensor:
        """Mask features as the attention bias sees them, before the last linear layer, [B, N, C]."""
        return self.bias_embed.hidden(mask_features.flatten(2).transpose(1, 2).to(self.query_features.dtype))

    def attention_bias(
        self, embeddings_BQC: Tensor, features_BNC: Tensor, size: tuple[int, int], grid: tuple[int, int]
    ) -> Tensor:
        """Per-head attention bias on the CLIP grid, [B, h, Q, grid pixels].

        The last layer of `bias_embed` is linear, so it is folded into the queries: each head's
        C x C part of it meets Q queries instead of every pixel.

        Args:
            embeddings_BQC: mask embeddings of the queries.
            features_BNC: of `bias_features`.
            size: rows and columns of stride 4, rows * columns = N.
            grid: rows and columns of the CLIP grid.
        """
        last: Any = self.bias_embed.layers[-1]
        scale = self.bias_scaling.weight[0, 0]
        weight = last.weight.unflatten(0, (self.clip_heads, -1)) * scale
        offset = last.bias.unflatten(0, (self.clip_heads, -1)) * scale
        features_BCN = features_BNC.transpose(1, 2).contiguous()
        pooled = []
        for head_weight, head_offset in zip(weight, offset, strict=True):
            folded = embeddings_BQC @ head_weight
            on_pixels = (folded @ features_BCN).unflatten(2, size)
            constant = embeddings_BQC @ head_offset
            pooled.append(F.adaptive_max_pool2d(on_pixels, grid).flatten(2) + constant[..., None])
        return torch.stack(pooled, 1) + self.bias_scaling.bias

    def _seen(self, normed_BQC: Tensor, features_BCN: Tensor) -> Tensor:
        """Pixels inside each query's mask so far; a query without any sees all. Bool [B, 1, Q, N]."""
        with torch.no_grad():
            logits = at_least_float32(self.mask_embed(normed_BQC)) @ features_BCN
            seen: Tensor = logits.sigmoid() >= 0.5
            return (seen | ~seen.any(-1, keepdim=True))[:, None]
