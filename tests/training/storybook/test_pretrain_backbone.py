"""Pretraining SAM's encoder or a Swin: the head, regions without classes, and a short repeatable run."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model import TrainingClasses
from model.network.build import build
from model.network.config import SwinConfig
from model.network.ebseg import EBSeg
from tests.pretended import pretended_device
from tests.training.run.runs import SIDE, micro_config, write_dataset
from training.data.layout import SegmentationFolder
from training.storybook.pretrain.backbone import (
    STRIDE,
    BackbonePretraining,
    PointHead,
    _regions,
    dice_loss,
    pretrain_backbone,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationFolder:
    return SegmentationFolder(write_dataset(tmp_path_factory.mktemp("data"), pictures=3), "train")


def micro(backbone: str) -> EBSeg:
    config = micro_config()
    if backbone == "swin":
        swin = SwinConfig(width=8, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4)
        config = dataclasses.replace(config, variant="tiny-swin-t", sam=None, swin=swin)
    return build(config, TrainingClasses.of(["a"]), seed=0)


CPU = torch.device("cpu")


def trained(
    data: SegmentationFolder, backbone: str, seed: int, device: torch.device = CPU
) -> tuple[dict[str, Tensor], float]:
    """The model's state after three steps, and the mean IoU."""
    ebseg = micro(backbone)
    settings = BackbonePretraining(steps=3, batch=2, warm_up=1, side=SIDE, seed=seed)
    iou = pretrain_backbone(ebseg, data, settings, device)
    assert not ebseg.backbone.training
    return ebseg.state_dict(), iou


@pytest.mark.parametrize("backbone", ["sam", "swin"])
def test_on_another_device_it_learns_the_same(
    backbone: str, data: SegmentationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the model comes back to the CPU."""
    monkeypatch.setattr("training.run.precision.cpu_amp", lambda: "off")  # as the pretended one computes
    wanted, iou = trained(data, backbone, 0)
    with pretended_device() as device:
        found, other_iou = trained(data, backbone, 0, device)
    assert other_iou == pytest.approx(iou, abs=0.02)
    for name, tensor in wanted.items():
        assert found[name].device == CPU
        assert (found[name] - tensor).abs().max().item() <= 1e-3, name  # three steps of 1e-3


def test_the_head_gives_a_map_at_stride_4_for_each_point() -> None:
    head = PointHead((6, 6, 8, 10), channels=16)
    maps = [torch.randn(2, width, 4, 5) for width in (6, 6, 8, 10)]
    points = torch.randint(8 * 10, (2, 3))
    logits = head(maps, points, (8, 10))
    assert logits.shape == (2, 3, 8, 10)
    at_points = logits.flatten(2).gather(2, points[..., None])[..., 0]
    torch.testing.assert_close(at_points, torch.full((2, 3), 5.0))  # a point agrees with itself: 10 - 5
    assert logits.max() <= 5 + 1e-4
    assert logits.min() >= -15 - 1e-4


def test_regions_are_numbered_at_stride_4_and_keep_no_class() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    masks[1, 8:, 8:] = True
    found = _regions(masks).unflatten(0, (16 // STRIDE, 16 // STRIDE))
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 2, 2], [1, 1, 2, 2]]
    nothing = _regions(torch.zeros(0, 16, 16, dtype=torch.bool))
    assert nothing.tolist() == [0] * 16


def test_dice_is_0_for_the_mask_itself_and_near_1_for_another() -> None:
    wanted = torch.tensor([[1.0, 1, 0, 0]]).repeat(1, 25)
    assert dice_loss(40 * (wanted - 0.5), wanted).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(40 * (0.5 - wanted), wanted).item() == pytest.approx(1 - 1 / 101, abs=1e-6)
    assert dice_loss(torch.zeros_like(wanted), wanted).item() == pytest.approx(1 - 51 / 101)


@pytest.mark.parametrize("backbone", ["sam", "swin"])
def test_a_short_run_trains_the_whole_backbone_alone_and_is_repeatable(
    data: SegmentationFolder, backbone: str
) -> None:
    start = micro(backbone).state_dict()
    (first, iou), (again, same_iou), (other, _) = (trained(data, backbone, seed) for seed in (0, 0, 1))
    assert 0 <= iou <= 1
    assert iou == same_iou
    assert first.keys() == start.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    moved = {name for name in first if not torch.equal(first[name], start[name])}
    assert moved == {name for name in first if name.startswith("backbone.")}
    assert all(torch.isfinite(value).all() for value in first.values())
