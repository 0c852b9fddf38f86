"""SAM's encoder against the blocks of segment_anything's own, with the same weights."""

import copy

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from model import VARIANTS
from model.network.sam_encoder import SamEncoder
from tests.model.plain_encoders import bicubic

SIDE = 128  # pixels that the position tables are made for: 8 x 8 patches
CONFIG = {"patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 3}
GLOBAL = (1, 3)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(scope="module", params=[3, 4, 20])
def theirs(request: pytest.FixtureRequest) -> ImageEncoderViT:
    """Windows of 3 leave pads on 8 patches, of 4 they leave none, of 20 one window is mostly pads."""
    encoder = ImageEncoderViT(
        img_size=SIDE, use_rel_pos=True, window_size=request.param, global_attn_indexes=GLOBAL, **CONFIG
    ).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = parameter.shape[1] ** -0.5 if parameter.dim() == 2 else 0.5
            parameter.copy_(scale * noise + (parameter.dim() == 1))
    return encoder


def outputs(encoder: ImageEncoderViT, images: Tensor) -> list[Tensor]:
    """What its global blocks give, [B, C, rows, columns]; as its own forward, for any grid."""
    found: list[Tensor] = []
    x = encoder.patch_embed(images)
    table = encoder.pos_embed.permute(0, 3, 1, 2)
    x = x + bicubic(table, (x.shape[1], x.shape[2])).permute(0, 2, 3, 1)
    for i, block in enumerate(encoder.blocks):
        x = block(x)
        if i in GLOBAL:
            found.append(x.permute(0, 3, 1, 2))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(128, 128), (64, 96), (32, 224), (160, 160)])
@torch.no_grad()
def test_equals_segment_anything(theirs: ImageEncoderViT, size: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, *size, generator=generator, dtype=torch.float64)
    wanted = outputs(theirs, images)
    ours = SamEncoder(
        patch_embed=theirs.patch_embed,
        pos_embed=theirs.pos_embed,
        blocks=theirs.blocks,
        global_blocks=GLOBAL,
    )
    found = copy.deepcopy(ours).to(dtype)(images.to(dtype))
    assert len(found) == len(wanted) == 2
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() <= TOLERANCE[dtype] * y.abs().max()


@torch.no_grad()
def test_exact_at_the_size_of_its_tables(theirs: ImageEncoderViT) -> None:
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = SamEncoder(
        patch_embed=theirs.patch_embed, pos_embed=theirs.pos_embed, blocks=theirs.blocks, global_blocks=GLOBAL
    )
    seen: list[Tensor] = []
    hook = theirs.blocks[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    theirs(images)
    hook.remove()
    wanted = seen[0].permute(0, 3, 1, 2)
    assert (ours(images)[-1] - wanted).abs().max() <= 1e-12 * wanted.abs().max()


def test_the_base_variant_is_sam_vit_b() -> None:
    """The published sizes of SAM's ViT-B."""
    sam = VARIANTS["base"].sam
    assert sam is not None
    assert (sam.width, sam.layers, sam.heads, sam.window) == (768, 12, 12, 14)
    assert sam.global_blocks == (2, 5, 8, 11)
    assert (sam.image_size, sam.patch_size) == (1024, 16)
    assert VARIANTS["large"].sam == sam


def test_layer_norms_are_sams_own(uneven: nn.Module) -> None:
    epsilons = {
        m.eps for name, m in uneven.named_modules() if name.startswith("backbone") and hasattr(m, "eps")
    }
    assert epsilons == {1e-6}
