"""Swin as an image backbone: against timm's own forward, on any grid, frozen and trained."""

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from model import VARIANTS, CheckpointError, EBSeg, EBSegConfig, TrainingClasses
from model.network.build import build
from model.network.config import SwinConfig
from model.network.swin_encoder import SwinEncoder
from model.official import official_names
from model.storage.checkpoint import Provenance, check_golden, load, save
from tests.golden.weights import picture

TIMM_NAMES = {"base-swin-t": "swin_tiny_patch4_window7_224", "base-swin-b": "swin_base_patch4_window12_384"}
# 64 x 96 pixels are 16 x 24, 8 x 12, 4 x 6 and 2 x 3 tokens: windows of 4 are padded, or the only one
SMALL = SwinConfig(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4)


def encoder(config: SwinConfig, seed: int = 0) -> SwinEncoder:
    """With weights that are large enough to tell windows and shifts apart."""
    whole = dataclasses.replace(VARIANTS["tiny-swin-t"], swin=config)
    backbone = build(whole, TrainingClasses.of(["sky"]), seed=seed).backbone
    assert isinstance(backbone, SwinEncoder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(
                noise / parameter.shape[1] ** 0.5 if "weight" in name and noise.dim() > 1 else noise
            )
    return backbone.requires_grad_(True)


def normalised(rows: int, columns: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    return build(VARIANTS["tiny-swin-t"], TrainingClasses.coco_stuff(), seed=0)


# --- the encoder


def test_equals_timm_where_windows_come_out_even() -> None:
    """224 pixels and windows of 7; of the last stage's 7 x 7 tokens timm shifts nothing, and so do we."""
    ours = encoder(SwinConfig(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=7))
    tower = timm.create_model(
        "swin_tiny_patch4_window7_224",
        features_only=True,
        embed_dim=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        drop_path_rate=0.0,
    )
    state = {name.replace("layers.", "layers_", 1): tensor for name, tensor in ours.state_dict().items()}
    tower.load_state_dict(state, strict=True)
    images = normalised(224, 224)
    with torch.no_grad():
        found, wanted = ours(images), tower(images)
    for map_, their_map in zip(found, wanted, strict=True):
        by_channel = torch.nn.functional.layer_norm(their_map, their_map.shape[-1:])
        assert error(map_, by_channel.permute(0, 3, 1, 2)) <= 1e-4


@pytest.mark.parametrize("variant", sorted(TIMM_NAMES))
def test_sizes_are_timms(variant: str) -> None:
    with torch.device("meta"):
        tower = timm.create_model(TIMM_NAMES[variant], pretrained=False, num_classes=0)
    theirs = {n: tuple(t.shape) for n, t in tower.state_dict().items() if not n.startswith("norm.")}
    ours = build(VARIANTS[variant], TrainingClasses.of(["sky"]), seed=None).backbone.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == theirs


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 320)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = encoder(SMALL)(normalised(*size, batch=2))
    for stride, width, found in zip((4, 8, 16, 32), (8, 16, 32, 64), maps, strict=True):
        assert found.shape == (2, width, size[0] // stride, size[1] // stride)
        assert found.mean(1).abs().max() < 1e-5
        assert found.isfinite().all()


def test_opposite_edges_do_not_meet() -> None:
    """A change at the bottom of a tall picture leaves its top alone, padded windows or not."""
    images = normalised(160, 32)
    changed = images.clone()
    changed[:, :, -4:] += 3.0
    swin = encoder(dataclasses.replace(SMALL, window=6))
    with torch.no_grad():
        before, after = swin(images)[0], swin(changed)[0]
    differs = (before != after).any(1).any(0).any(-1)
    assert differs[-1]
    assert not differs[:20].any()


def test_shifted_windows_join_neighbours() -> None:
    """Without them, the first window of the first stage would see its own 16 pixels only."""
    images = normalised(64, 64)
    changed = images.clone()
    changed[:, :, 16:20] += 3.0
    swin = encoder(SMALL)
    with torch.no_grad():
        before, after = swin(images)[0], swin(changed)[0]
    differs = (before != after).any(1).any(0).any(-1)
    assert differs.nonzero()[:, 0].min() == 2


def test_gradients_reach_all_of_it() -> None:
    swin = encoder(SMALL).train()
    generator = torch.Generator().manual_seed(2)
    maps = swin(normalised(64, 96))
    torch.stack([(x * torch.randn(x.shape, generator=generator)).mean() for x in maps]).sum().backward()
    for name, parameter in swin.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_training_mode_changes_nothing() -> None:
    """No stochastic depth and no dropout: a frozen backbone gives the same features in every step."""
    swin, images = encoder(SMALL), normalised(64, 64)
    with torch.no_grad():
        wanted = swin.eval()(images)
        for a, b in zip(swin.train()(images), wanted, strict=True):
            assert torch.equal(a, b)


# --- the whole model


def test_batched_is_alone(ebseg: EBSeg) -> None:
    images = torch.stack([picture(64, 96, 0.0), picture(64, 96, 1.0)])
    with torch.no_grad():
        together = ebseg.stages(images)[-1]
        for b in range(2):
            alone = ebseg.stages(images[b : b + 1])[-1]
            for name in ("mask_logits", "supervised", "mask_attention"):
                assert error(getattr(together, name)[b], getattr(alone, name)[0]) <= 1e-3, name


@pytest.mark.parametrize("train_backbone", [False, True])
def test_frozen_or_trained(ebseg: EBSeg, train_backbone: bool) -> None:
    before = {name: p.requires_grad for name, p in ebseg.backbone.named_parameters()}
    assert not any(before.values())
    ebseg.backbone.requires_grad_(train_backbone)
    try:
        stages = ebseg.stages(picture(64, 64, 0.0)[None])
        total = torch.stack([stage.mask_logits.square().mean() for stage in stages]).sum()
        total.backward()
        felt = [p.grad is not None for p in ebseg.backbone.parameters()]
    finally:
        ebseg.backbone.requires_grad_(False)
        ebseg.zero_grad(set_to_none=True)
    assert felt == [train_backbone] * len(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_predicts_at_any_size(dtype: torch.dtype) -> None:
    swin = build(VARIANTS["tiny-swin-b"], TrainingClasses.coco_stuff(), seed=0).to_compute_dtype(dtype)
    for rows, columns in ((1, 70), (192, 100)):
        found = swin.predict(picture(rows, columns, 0.0)[None])
        assert found.mask_logits.shape[-2:] == ((rows + 31) // 32 * 8, (columns + 31) // 32 * 8)
        assert found.frozen.isfinite().all()


def test_checkpoint_and_back(ebseg: EBSeg, tmp_path: Path) -> None:
    """Loading builds without memory; what is no weight has to be there all the same."""
    save(ebseg, tmp_path / "swin" / "1", Provenance(name="swin", version=1, untrained=False))
    loaded = load(tmp_path / "swin" / "1")
    assert loaded.ebseg.config == ebseg.config
    assert check_golden(loaded) <= 1e-6


def test_what_is_trained_beside_it_as_in_table_7() -> None:
    """Millions: 26.6 with SAM; the paper counts 0.4 more with Swin-B than with Swin-T."""

    def count(variant: str) -> int:
        model: nn.Module = build(VARIANTS[variant], TrainingClasses.of(["sky"]), seed=None)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    assert (count("base-swin-t"), count("base-swin-b")) == (22_320_643, 22_788_035)


def test_the_official_code_has_no_such_backbone(ebseg: EBSeg) -> None:
    with pytest.raises(CheckpointError, match=r"SAM as its image backbone, .* tiny-swin-t has not"):
        official_names(ebseg)


def test_configurations_differ_in_the_backbone_alone() -> None:
    for name in ("tiny-swin-t", "base-swin-b"):
        config, plain = VARIANTS[name], VARIANTS[name.partition("-")[0]]
        restored = dataclasses.replace(config, variant=plain.variant, sam=plain.sam, swin=None)
        assert restored == plain
        assert isinstance(config, EBSegConfig)
