"""How the network is computed on a kind of processor. What is computed stands in the other files.

Each `ByDevice` has a column a kind of device, and above it the reason, with the figure that was measured.
Figures are of two cores of a server CPU, float32, EBSeg-base at 640 x 640 unless another is named. No figure
was taken on a GPU yet: where its column says what the CPU's says, that is for want of one. A choice moves
results by rounding alone.

Shape suffixes: B pictures, h heads, N tokens, D channels of a head, H and W rows and columns, T pixels of a
tile, Q queries, K classes.
"""

import math
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")
HALF = (torch.bfloat16, torch.float16)
ROUNDING = 1e-5  # relative; far above what reordering a sum of products changes


@dataclass(frozen=True, kw_only=True, slots=True)
class ByDevice(Generic[T]):
    """One way or number for each kind of device.

    Attributes:
        cpu: on a CPU.
        cuda: on an NVIDIA GPU, and on every other device.
    """

    cpu: T
    cuda: T

    def on(self, device: torch.device) -> T:
        """What holds on a device."""
        return self.cpu if device.type == "cpu" else self.cuda


Attention = Literal["fused", "products"]
Convolution = Literal["convolution", "products"]

# Whether `predict` runs the pictures of a batch one after another. A CPU gains little by a batch, and the
# products of a batch round otherwise than those of a single picture: so a picture gets the same bits in any
# company. A GPU is idle most of the time with a single one.
ONE_PICTURE_AT_A_TIME: ByDevice[bool] = ByDevice(cpu=True, cuda=False)

# Attention in bfloat16 and float16. torch's fused kernel for the CPU converts to float32 inside, and so
# leaves the fast units; plain products stay in them. In float32 it is the fused kernel everywhere.
HALF_ATTENTION: ByDevice[Attention] = ByDevice(cpu="products", cuda="fused")

# SAM's bias for rows and columns in float32, and on a GPU in every type. As further channels of queries and
# keys it needs no N x N tensor, so that flash attention serves: 64 + 40 + 40 of them at 640 x 640. A CPU's
# fused kernel takes a mask gladly, and more channels cost it more.
GRID_BIAS: ByDevice[Literal["mask", "channels"]] = ByDevice(cpu="mask", cuda="channels")
FLASH_CHANNELS = 256  # of a head, at most
FLASH_MULTIPLE = 8

# Attention logits of SAM's global blocks that are held at a time, numbers; so many heads as fit run together.
# 2^24 is 64 MiB in float32: at 640 x 640 six heads of 1,600 patches, of 2,560 x 640 one head after another.
LOGITS_AT_ONCE: ByDevice[int] = ByDevice(cpu=2**24, cuda=2**24)

# 3x3 convolutions in float32. The CPU's kernels round four times as much as nine matrix products do; that was
# most of the noise in the mask logits, and a logit that rounding carries over its threshold changes what a
# query sees. cuDNN's round as products do, once TF32 is off.
CONVOLUTION: ByDevice[Convolution] = ByDevice(cpu="products", cuda="convolution")

# Prompt tokens that go through the text tower together: bounds the memory of one pass.
TOKENS_AT_ONCE: ByDevice[int] = ByDevice(cpu=4_096, cuda=4_096)

# How label maps are made. In tiles on a CPU, for its cache; in bands, and many pictures at once, where each
# wait for the device costs more than the arithmetic. Sums of other shapes round otherwise: a pixel whose two
# best classes are equal but for rounding may get the other one.
LABEL_MAPS: ByDevice[Literal["tiles", "bands"]] = ByDevice(cpu="tiles", cuda="bands")

# Rows and columns of a tile. Its 16,384 pixels times a hundred queries fit into the cache, and it is small
# enough for few classes to be seen in it: EBSeg-tiny, 847 classes at 640 x 480 on one core, 0.15 s, in tiles
# of 128 x 512 0.24 s, in one piece 0.31 s. Smaller tiles were faster there (32 x 128: 0.07 s), but may move
# labels.
TILE = (64, 256)

# Rows and columns of a block in which tiles of a picture are blended; on a GPU larger, so that it is busy.
BLENDED_BLOCK: ByDevice[tuple[int, int]] = ByDevice(cpu=TILE, cuda=(512, 512))

# Pixels of a band, whole rows: 2^20 times a hundred queries are 400 MiB in float32.
BAND_PIXELS: ByDevice[int] = ByDevice(cpu=2**20, cuda=2**20)

# Label maps that are made at once for several requests, with one wait for all. On a CPU nothing waits.
LABEL_MAPS_AT_ONCE: ByDevice[int] = ByDevice(cpu=1, cuda=16)

# Classes whose scores of a band are held at a time: 64 times 2^20 pixels are 256 MiB in float32.
CLASSES_AT_ONCE: ByDevice[int] = ByDevice(cpu=64, cuda=64)

# How the smallest of a row are found, in training. numpy's partition is vectorised: a twelfth of topk's time.
SMALLEST: ByDevice[Literal["numpy", "torch"]] = ByDevice(cpu="numpy", cuda="torch")


# --- attention


def attention(q_BhND: Tensor, k_BhND: Tensor, v_BhND: Tensor) -> Tensor:
    """Plain attention, [B, h, N, D]."""
    if _attention_on(q_BhND) == "products":
        logits = q_BhND @ k_BhND.transpose(-2, -1) / math.sqrt(q_BhND.shape[-1])
        return logits.softmax(-1) @ v_BhND
    return F.scaled_dot_product_attention(q_BhND, k_BhND, v_BhND)


def attention_on_grid(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention over a grid of H x W tokens whose logits get a bias for the key's row and one for its column.

    Args:
        q, k, v: [B, h, N, D], N = H * W.
        by_row, by_column: [B, h, H, W, H] and [B, h, H, W, W].

    Returns:
        [B, h, N, D].
    """
    channels = q.shape[-1] + by_row.shape[-1] + by_column.shape[-1]
    if GRID_BIAS.on(q.device) == "channels" and channels <= FLASH_CHANNELS:
        return _grid_flash(q, k, v, by_row, by_column)
    attend = _grid_by_products if _attention_on(q) == "products" else _grid_fused
    heads = max(1, LOGITS_AT_ONCE.on(q.device) // (q.shape[0] * q.shape[2] ** 2))
    some_heads = (x.split(heads, 1) for x in (q, k, v, by_row, by_column))
    return torch.cat([attend(*parts) for parts in zip(*some_heads, strict=True)], 1)


def _attention_on(q: Tensor) -> Attention:
    return HALF_ATTENTION.on(q.device) if q.dtype in HALF else "fused"


def _grid_fused(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """With the two biases added up as the fused kernel's mask."""
    bias = by_row.contiguous()[..., None] + by_column.contiguous()[..., None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(4).flatten(2, 3))


def _grid_by_products(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """As matrix products alone."""
    biased_q, placed_k = _with_bias(q, k, by_row, by_column)
    return (biased_q @ placed_k.transpose(-2, -1)).softmax(-1) @ v


def _grid_flash(q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """By a fused kernel without a mask, which wants as many channels of values as of keys."""
    biased_q, placed_k = _with_bias(q, k, by_row, by_column)
    channels, own = biased_q.shape[-1], v.shape[-1]
    whole = channels + -channels % FLASH_MULTIPLE
    q, k, v = (F.pad(x, (0, whole - x.shape[-1])) for x in (biased_q, placed_k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :own]


def _with_bias(q: Tensor, k: Tensor, by_row: Tensor, by_column: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys whose product is logit plus bias.

    A query carries its bias for each row and column as further channels, and a key has a one at its own row
    and column.
    """
    height, width = by_row.shape[-1], by_column.shape[-1]
    at_row = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1).flatten(0, 1)
    at_column = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    place = torch.cat([at_row, at_column], -1).expand(*k.shape[:-1], -1)
    biased_q = torch.cat([q * q.shape[-1] ** -0.5, by_row.flatten(2, 3), by_column.flatten(2, 3)], -1)
    return biased_q, torch.cat([k, place], -1)


# --- convolutions


def embed_patches(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """Patches to tokens, [B, C, H, W] -> [B, h, w, channels]: a convolution that steps by its own kernel.

    It is one matrix product, on every device, and as such rounds less than the convolution kernels do; on a
    GPU those may compute in TF32 where products do not. An edge that does not fill a patch is lost.
    """
    down, across = conv.kernel_size
    height, width = x_BCHW.shape[-2] // down, x_BCHW.shape[-1] // across
    x = x_BCHW[..., : height * down, : width * across]
    patches = x.unflatten(3, (width, across)).unflatten(2, (height, down))  # [B, C, h, down, w, across]
    return F.linear(patches.permute(0, 2, 4, 1, 3, 5).flatten(3), conv.weight.flatten(1), conv.bias)


def pointwise(conv: nn.Conv2d, x_BCHW: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution as a matrix product, on every device: it rounds less than convolution kernels do."""
    out = F.linear(x_BCHW.permute(0, 2, 3, 1), conv.weight.flatten(1), bias)
    return out.permute(0, 3, 1, 2)


def convolve_3x3(conv: nn.Conv2d, x_BCHW: Tensor, *, exact: bool = True) -> Tensor:
    """A 3x3 convolution without bias, padded with zeros, [B, C, H, W] -> [B, channels, H, W].

    Args:
        conv: whose weight it is.
        x_BCHW: the maps.
        exact: whether the input is worth products that round less; after half precision it is not.
    """
    if not exact or CONVOLUTION.on(x_BCHW.device) == "convolution":
        return F.conv2d(x_BCHW, conv.weight, padding=1)
    return _convolve_by_products(conv.weight, x_BCHW)


def _convolve_by_products(weight: Tensor, x_BCHW: Tensor) -> Tensor:
    """Nine products: with two columns of padding between rows, each shift is a slice of one flat map.

    Nothing is copied for them.
    """
    batch, channels, height, width = x_BCHW.shape
    across = width + 2
    # one more row below, so that the last shift does not run over the end
    padded = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 2)).flatten(1, 2)
    shifts = [
        padded[:, y * across + x : y * across + x + height * across] for y in range(3) for x in range(3)
    ]
    weights = weight.permute(2, 3, 1, 0).reshape(9, channels, -1)
    out = shifts[0] @ weights[0]
    for shift, part in zip(shifts[1:], weights[1:], strict=True):
        out.baddbmm_(shift, part.expand(batch, -1, -1))
    return out.view(batch, height, across, -1)[:, :, :width].permute(0, 3, 1, 2)


# --- choosing


def contenders(masks_QT: Tensor, probabilities_QK: Tensor) -> Tensor:
    """Classes that can win a pixel of the tile, in order, int64 [at most K].

    A class scores at most what it would if every query covered the tile as well as it does at its best
    pixel; some class scores at least what it would at every query's worst. Who stays below that
    everywhere is left out, which leaves a handful of hundreds: EBSeg-tiny, 847 classes at 640 x 480 on one
    core, takes 0.15 s instead of 0.23 s.

    Args:
        masks_QT: probability of each query's mask at each pixel, 0..1.
        probabilities_QK: of each class for each query, 0..1.
    """
    highest = masks_QT.amax(1) @ probabilities_QK
    certain = (masks_QT.amin(1) @ probabilities_QK).max()
    return (highest >= certain * (1 - ROUNDING)).nonzero()[:, 0]


def best_class(scores_TK: Tensor) -> tuple[Tensor, Tensor]:
    """Largest score and its class, [T] each, on a CPU; numpy's argmax is vectorised there, torch's is not."""
    winner = torch.from_numpy(scores_TK.numpy().argmax(1))
    return scores_TK.gather(1, winner[:, None])[:, 0], winner


def smallest(values_QT: Tensor, count: int) -> Tensor:
    """Places of the smallest values of each row, in no order, int64 [Q, count]."""
    if SMALLEST.on(values_QT.device) == "numpy":
        order = values_QT.numpy().argpartition(max(0, count - 1), axis=1)
        return torch.from_numpy(order[:, :count])
    return values_QT.topk(count, 1, largest=False, sorted=False).indices
