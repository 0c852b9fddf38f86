"""The encoders of plain.py, and the parts of layers that it shares with them.

Shape suffixes: B pictures, N tokens, C channels, h heads, D channels of a head, Q queries.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from model import EBSeg

Size = tuple[int, int]
PIXELS = {  # mean and deviation, of pixels in 0..255
    "sam": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "clip": (
        tuple(255 * v for v in (0.48145466, 0.4578275, 0.40821073)),
        tuple(255 * v for v in (0.26862954, 0.26130258, 0.27577711)),
    ),
}
UNSEEN = -100.0  # the official attention bias of what is not to be seen


class PlainEncoders:
    """SAM, CLIP and the mask attention, slowly."""

    def __init__(self, ebseg: EBSeg):
        self.config = ebseg.config
        self.weights = {name: tensor.detach().double() for name, tensor in ebseg.state_dict().items()}

    # --- parts of layers

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, x: Tensor, name: str, epsilon: float = 1e-5) -> Tensor:
        shape = (x.shape[-1],)
        return F.layer_norm(x, shape, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], epsilon)

    def conv(self, x: Tensor, name: str, padding: int = 0, stride: int = 1) -> Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), stride, padding)

    def group_norm(self, x: Tensor, name: str) -> Tensor:
        groups = self.config.pixel_decoder.norm_groups
        return F.group_norm(x, groups, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def mlp(self, x: Tensor, name: str, layers: int = 3) -> Tensor:
        for i in range(layers):
            x = self.linear(x, f"{name}.layers.{i}")
            x = x.relu() if i + 1 < layers else x
        return x

    def packed(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of queries, keys, values."""
        weights = self.weights[f"{name}.in_proj_weight"].chunk(3)
        return list(zip(weights, self.weights[f"{name}.in_proj_bias"].chunk(3), strict=True))

    def multi_head(
        self, q_BNC: Tensor, k_BNC: Tensor, v_BNC: Tensor, heads: int, mask: Tensor | None = None
    ) -> Tensor:
        """Attention head by head; `mask` is added to the logits, [B or 1, h or 1, rows, columns]."""
        out = []
        for i, (q, k, v) in enumerate(
            zip(q_BNC.chunk(heads, -1), k_BNC.chunk(heads, -1), v_BNC.chunk(heads, -1), strict=True)
        ):
            logits = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
            if mask is not None:
                logits = logits + mask[:, i if mask.shape[1] > 1 else 0]
            out.append(logits.softmax(-1) @ v)
        return torch.cat(out, -1)

    # --- encoders

    def input(self, images: Tensor, encoder: str) -> Tensor:
        """Normalised, then padded to multiples of 32."""
        mean, deviation = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in PIXELS[encoder])
        x = (images.double() - mean) / deviation
        return F.pad(x, (0, -images.shape[3] % 32, 0, -images.shape[2] % 32))

    def sam(self, images: Tensor) -> list[Tensor]:
        """Outputs of the global blocks, [B, C, rows, columns]."""
        config = self.config.sam
        assert config is not None
        x = self.conv(images, "backbone.patch_embed.proj", stride=config.patch_size)
        x = x + bicubic(self.weights["backbone.pos_embed"].permute(0, 3, 1, 2), sizes(x))
        x = x.permute(0, 2, 3, 1)
        outputs = []
        for i in range(config.layers):
            name = f"backbone.blocks.{i}"
            side = 0 if i in config.global_blocks else config.window
            x = x + self.sam_attention(self.norm(x, f"{name}.norm1", 1e-6), f"{name}.attn", side)
            hidden = F.gelu(self.linear(self.norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.lin1"))
            x = x + self.linear(hidden, f"{name}.mlp.lin2")
            if i in config.global_blocks:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def sam_attention(self, x: Tensor, name: str, side: int) -> Tensor:
        """Windows, the last ones filled with zeros, one by one; side 0 is one window of everything."""
        _, height, width, _ = x.shape
        if not side:
            return self.sam_window(x, name)
        padded = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows = []
        for top in range(0, height, side):
            windows = [
                self.sam_window(padded[:, top : top + side, left : left + side], name)
                for left in range(0, width, side)
            ]
            rows.append(torch.cat(windows, 2))
        return torch.cat(rows, 1)[:, :height, :width]

    def sam_window(self, x: Tensor, name: str) -> Tensor:
        """Attention with a bias of query times distance vector, pair by pair of rows and of columns."""
        assert self.config.sam is not None
        heads = self.config.sam.heads
        batch, height, width, _ = x.shape
        q, k, v = self.linear(x.flatten(1, 2), f"{name}.qkv").chunk(3, -1)
        bias = []
        for q_head in q.chunk(heads, -1):
            grid = q_head.reshape(batch, height, width, -1)
            total = torch.zeros(batch, height, width, height, width, dtype=x.dtype)
            down = self.distances(f"{name}.rel_pos_h", height)
            across = self.distances(f"{name}.rel_pos_w", width)
            for y in range(height):
                for other in range(height):
                    total[:, y, :, other] += (grid[:, y] @ down[y - other + height - 1])[:, :, None]
            for x_ in range(width):
                for other in range(width):
                    total[:, :, x_, :, other] += (grid[:, :, x_] @ across[x_ - other + width - 1])[..., None]
            bias.append(total.view(batch, height * width, height * width))
        out = self.multi_head(q, k, v, heads, torch.stack(bias, 1))
        return self.linear(out, f"{name}.proj").reshape(x.shape)

    def distances(self, name: str, size: int) -> Tensor:
        """Vectors of the distances -(size - 1) .. size - 1, [2 * size - 1, D]."""
        table = self.weights[name]
        return F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T

    def clip(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Size]:
        """Fused layers [B, C, rows, columns], tokens, surgery tokens (class token first), grid."""
        config = self.config
        x = F.interpolate(images, scale_factor=config.clip_scale, mode="bilinear")
        x = self.conv(x, "clip_image.conv1", stride=config.clip.patch_size)
        grid = sizes(x)
        table = self.weights["clip_image.positional_embedding"]
        side = math.isqrt(len(table) - 1)
        places = bicubic(as_map(table[None, 1:], (side, side)), grid)
        token = (self.weights["clip_image.class_embedding"] + table[0]).expand(len(x), 1, -1)
        x = torch.cat([token, (x + places).flatten(2).transpose(1, 2)], 1)
        x = self.norm(x, "clip_image.ln_pre")
        layers, surgery = [], x
        for i in range(config.fused_layers[-1]):
            if i == config.surgery_start:
                surgery = x
            x, surgery = self.clip_block(x, surgery, f"clip_image.blocks.{i}", None)
            if i + 1 in config.fused_layers:
                layers.append(as_map(x[:, 1:], grid))
        return layers, x, surgery, grid

    def clip_block(self, x: Tensor, surgery: Tensor, name: str, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """A block on the original path, and on the surgery path: values attend to values, and no more."""
        heads = self.config.clip.image_heads
        normed = self.norm(x, f"{name}.ln_1")
        q, k, v = (normed @ weight.T + bias for weight, bias in self.packed(f"{name}.attn"))
        surgery = surgery + self.linear(self.multi_head(v, v, v, heads, mask), f"{name}.attn.out_proj")
        x = x + self.linear(self.multi_head(q, k, v, heads, mask), f"{name}.attn.out_proj")
        hidden = self.linear(self.norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc")
        return x + self.linear(hidden * (1.702 * hidden).sigmoid(), f"{name}.mlp.c_proj"), surgery

    def mask_attention(
        self, tokens: Tensor, surgery: Tensor, grid: Size, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """B [B, Q, C] and F_clip [B, C, rows, columns]: [queries, class token, pixels] under one mask."""
        batch, heads, queries, pixels = bias.shape
        mask = torch.zeros(batch, heads, queries + 1 + pixels, queries + 1 + pixels, dtype=bias.dtype)
        mask[:, :, :, : queries + 1] = UNSEEN
        mask[:, :, queries:, queries] = 0
        mask[:, :, range(queries), range(queries)] = 0
        mask[:, :, :queries, queries + 1 :] = bias
        x = torch.cat([tokens[:, :1].expand(-1, queries, -1), tokens], 1)
        surgery = torch.cat([surgery[:, :1].expand(-1, queries, -1), surgery], 1)
        for i in range(self.config.clip.image_layers - self.config.fused_layers[-1]):
            x, surgery = self.clip_block(x, surgery, f"mask_attention.blocks.{i}", mask)

        def joint(y: Tensor) -> Tensor:
            return unit(self.norm(y, "mask_attention.ln_post") @ self.weights["mask_attention.proj"])

        return joint(x[:, :queries]), as_map(joint(surgery[:, queries + 1 :]), grid)


def sizes(x: Tensor) -> Size:
    return (x.shape[-2], x.shape[-1])


def unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(-1, keepdim=True).sqrt()


def as_map(x_BNC: Tensor, size: Size) -> Tensor:
    """[B, rows * columns, C] -> [B, C, rows, columns]."""
    return x_BNC.transpose(1, 2).reshape(len(x_BNC), -1, *size)


def bilinear(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def bicubic(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False)
