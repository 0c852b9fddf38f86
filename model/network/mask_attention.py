"""The last quarter of CLIP's image tower under per-query attention bias (section 3.3).

It gives the mask attention embeddings B, and the surgery path's end F_clip for the frozen embeddings D.
In the official attention bias, query rows see themselves and the pixels, under the learned bias;
pixels and class token never see queries. So the pixels run once, and the queries are extra rows that
read the pixels' keys and values: the same numbers, without a row per query in the pixels' attention.

Shape suffixes: B pictures, N = h * w pixels of the CLIP grid, Q query rows, C channels, D channels of
a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.clip_image import ClipFeatures, attend, feed_forward, qkv, surgery_attention
from model.network.layers import Block, join_heads


class MaskAttention(nn.Module):
    """CLIP's last blocks, final norm and projection.

    Args:
        blocks, ln_post, proj: parts of an open_clip `VisionTransformer`; proj is [C, joint width].
    """

    def __init__(self, *, blocks: nn.ModuleList, ln_post: nn.Module, proj: nn.Parameter):
        super().__init__()
        self.blocks = blocks
        self.ln_post = ln_post
        self.proj = proj

    def forward(self, features: ClipFeatures, bias_BhQN: Tensor) -> tuple[Tensor, Tensor | None]:
        """Runs the blocks.

        Args:
            features: of the image encoder.
            bias_BhQN: added to the attention logits of each query row on each pixel, [B, heads, Q, N].

        Returns:
            B, unit length, [B, Q, joint width]; and F_clip, unit length per pixel,
            [B, joint width, h, w], or None when the features carry no surgery path.
        """
        x = features.tokens
        surgery = features.surgery
        queries = x[:, :1].expand(-1, bias_BhQN.shape[2], -1)
        block: Block
        for i, block in enumerate(self.blocks):
            q, k, v = qkv(block, block.ln_1(x))
            if surgery is not None:
                surgery = surgery + surgery_attention(block, v)
            queries = self._query_rows(block, queries, k[:, :, 1:], v[:, :, 1:], bias_BhQN)
            if i + 1 < len(self.blocks):  # nothing reads the pixels after the last block
                x = feed_forward(block, x + attend(block, q, k, v))
        embeddings = self._to_joint_space(queries)
        if surgery is None:
            return embeddings, None
        pixels = self._to_joint_space(surgery)
        return embeddings, pixels.transpose(1, 2).unflatten(2, features.grid)

    @staticmethod
    def _query_rows(
        block: Block, queries_BQC: Tensor, k_BhND: Tensor, v_BhND: Tensor, bias_BhQN: Tensor
    ) -> Tensor:
        """One block for the query rows: each attends to the pixels and to itself alone."""
        q, own_k, own_v = qkv(block, block.ln_1(queries_BQC))
        q = q * q.shape[-1] ** -0.5
        on_pixels = q @ k_BhND.transpose(-2, -1) + bias_BhQN
        on_itself = (q * own_k).sum(-1, keepdim=True)
        weight = torch.cat([on_pixels, on_itself], -1).softmax(-1)
        mixed = weight[..., :-1] @ v_BhND + weight[..., -1:] * own_v
        return feed_forward(block, queries_BQC + block.attn.out_proj(join_heads(mixed)))

    def _to_joint_space(self, x_BNC: Tensor) -> Tensor:
        return F.normalize(self.ln_post(x_BNC) @ self.proj, dim=-1)
