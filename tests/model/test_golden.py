"""The golden picture finds a model that computes something else."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from model import golden
from model.build import build
from model.config import VARIANTS
from model.ebseg import EBSeg
from model.errors import CheckpointError
from model.vocabulary import TrainingClasses

Golden = dict[str, Tensor]


def make() -> EBSeg:
    """The tiny model with next to no text tower."""
    tiny = VARIANTS["tiny"]
    clip = dataclasses.replace(tiny.clip, text_vocabulary=16, text_layers=1)
    return build(dataclasses.replace(tiny, clip=clip), TrainingClasses.of(["sky"]), seed=0).eval()


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    return make()


@pytest.fixture(scope="module")
def tensors(ebseg: EBSeg) -> Golden:
    return golden.make(ebseg)


def test_the_same_model_agrees(ebseg: EBSeg, tensors: Golden) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "image": (3, 96, 128),
        "mask_logits": (1, 24, 24, 32),
        "supervised": (1, 24, 96),
        "mask_attention": (1, 24, 96),
        "frozen": (1, 24, 96),
    }
    assert golden.compare(ebseg, tensors) <= 1e-6


def test_rounding_is_allowed(tensors: Golden) -> None:
    ebseg = make()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ebseg.parameters():
            parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape, generator=noise))
    assert 0 < golden.compare(ebseg, tensors) <= 1e-4


def test_a_changed_weight_is_found(tensors: Golden) -> None:
    ebseg = make()
    with torch.no_grad():
        ebseg.clip_image.conv1.weight.mul_(1.02)
    with pytest.raises(CheckpointError, match=r"off by more than the 0\.001 allowed: .*frozen by"):
        golden.compare(ebseg, tensors)


def test_another_activation_is_found(tensors: Golden) -> None:
    ebseg = make()
    for module in ebseg.clip_image.modules():
        if isinstance(module, nn.Sequential) and hasattr(module, "gelu"):
            module.gelu = nn.GELU()  # CLIP's is the quick approximation
    with pytest.raises(CheckpointError, match="outputs are off"):
        golden.compare(ebseg, tensors)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("frozen", torch.full((1, 24, 96), float("nan")), "frozen by nan"),
        ("frozen", torch.zeros(2), r"frozen has shape \[2\], the model gives \[1, 24, 96\]"),
        ("image", torch.zeros(2), "pictures must be uint8"),
        ("image", None, "lacks image"),
        ("mask_logits", None, "lacks mask_logits"),
    ],
)
def test_tensors_must_fit(
    ebseg: EBSeg, tensors: Golden, name: str, value: Tensor | None, reason: str
) -> None:
    changed = {key: tensor for key, tensor in tensors.items() if key != name}
    if value is not None:
        changed[name] = value
    with pytest.raises((CheckpointError, ValueError), match=reason):
        golden.compare(ebseg, changed)


def test_small_differences_count_by_their_share(ebseg: EBSeg, tensors: Golden) -> None:
    assert golden.compare(ebseg, tensors | {"supervised": tensors["supervised"] * 1.0005}) == pytest.approx(
        0.0005, rel=0.01
    )
    with pytest.raises(CheckpointError, match=r"supervised by 0\.002"):
        golden.compare(ebseg, tensors | {"supervised": tensors["supervised"] * 1.002})


def test_picture_is_smooth_and_fills_the_range() -> None:
    picture = golden.image(96, 128)
    assert (picture.dtype, picture.shape) == (torch.uint8, (3, 96, 128))
    assert picture.amin() < 32
    assert picture.amax() > 223
    assert picture.int().diff(dim=2).abs().amax() <= 20
    assert torch.equal(picture, golden.image(96, 128))
