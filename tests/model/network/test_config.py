"""Configurations: to JSON and back, strictly, and no field without a reader."""

import ast
import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import model
from model import VARIANTS, Balance, CheckpointError, EBSegConfig, Weights
from model.network.config import (
    ClipConfig,
    PixelDecoderConfig,
    SamConfig,
    SwinConfig,
    TransformerDecoderConfig,
)

PARTS = ("clip", "sam", "pixel_decoder", "transformer_decoder")


def values() -> dict[str, Any]:
    """The tiny configuration as JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(VARIANTS["tiny"].to_dict()))
    return plain


def refused(changed: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        EBSegConfig.from_dict(changed)
    return str(caught.value)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_to_json_and_back(variant: str) -> None:
    config = VARIANTS[variant]
    assert config.variant == variant
    assert EBSegConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_another_balance_comes_back() -> None:
    config = dataclasses.replace(VARIANTS["tiny"], balance=Balance.arithmetic(supervised_trained=0.1))
    again = EBSegConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.balance == config.balance
    assert again.balance.trained == Weights(supervised=0.1, mask_attention=0.7, frozen=0.2)


def test_reading_leaves_the_values_alone() -> None:
    given = values()
    before = copy.deepcopy(given)
    EBSegConfig.from_dict(given)
    assert given == before


def test_numbers_of_the_released_models() -> None:
    base, large = VARIANTS["base"], VARIANTS["large"]
    assert (base.clip.joint_width, base.clip.image_heads, base.clip_scale) == (512, 12, 0.5)
    assert (large.clip.joint_width, large.clip.image_heads, large.clip_scale) == (768, 16, 0.7)
    assert base.fused_layers == (3, 6, 9)
    assert large.fused_layers == (6, 12, 18)
    assert base.balance == Balance.geometric(frozen_trained=0.09, frozen_new=0.3, mask_attention=0.7)
    assert large.balance == Balance.geometric(frozen_trained=0.12, frozen_new=0.4, mask_attention=0.6)
    for config in (base, large):
        assert config.surgery_start == config.clip.image_layers // 6
        assert config.fused_layers[-1] == config.clip.image_layers * 3 // 4
        assert (config.transformer_decoder.queries, config.transformer_decoder.layers) == (100, 9)
        assert (config.hidden, config.pixel_decoder.layers) == (256, 6)
        assert (config.short_side, config.long_side) == (640, 2560)


# --- refused


@pytest.mark.parametrize("field", sorted(values()))
def test_missing_field(field: str) -> None:
    changed = values()
    del changed[field]
    assert field in refused(changed)


@pytest.mark.parametrize("part", PARTS)
def test_missing_field_of_a_part(part: str) -> None:
    for field in list(values()[part]):
        changed = values()
        del changed[part][field]
        assert field in refused(changed)


def test_unknown_fields() -> None:
    assert "depth" in refused(values() | {"depth": 3})
    for part in (*PARTS, "balance"):
        changed = values()
        changed[part]["depth"] = 3
        assert "depth" in refused(changed)


@pytest.mark.parametrize("part", [*PARTS, "balance"])
@pytest.mark.parametrize("wrong", [None, [], "large", 3])
def test_part_of_the_wrong_kind(part: str, wrong: Any) -> None:
    assert part in refused(values() | {part: wrong})


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("hidden", "64"),
        ("hidden", None),
        ("clip_scale", "1"),
        ("fused_layers", 3),
        ("short_side", 1.5),
        ("variant", 1),
    ],
)
def test_field_of_the_wrong_kind(field: str, wrong: Any) -> None:
    assert field in refused(values() | {field: wrong})


@pytest.mark.parametrize("wrong", [None, [], "tiny"])
def test_no_object_at_all(wrong: Any) -> None:
    assert "config" in refused(wrong)


def test_one_backbone_exactly() -> None:
    swin = VARIANTS["tiny-swin-t"].to_dict()["swin"]
    assert "swin" not in values()  # as it was before there was one, so older files are still read
    assert EBSegConfig.from_dict(values() | {"swin": None}) == VARIANTS["tiny"]
    assert "either sam or swin" in refused(values() | {"swin": swin})
    assert "either sam or swin" in refused(values() | {"sam": None})
    assert "config.swin" in refused(values() | {"swin": {**swin, "depths": [2, 2, 2]}})
    assert EBSegConfig.from_dict(values() | {"sam": None, "swin": swin}).backbone_widths == (24, 48, 96, 192)


def test_broken_balance() -> None:
    changed = values()
    changed["balance"]["trained"]["frozen"] = 0.9
    assert "add up to 1" in refused(changed)
    changed = values()
    changed["balance"]["mean"] = "harmonic"
    assert "harmonic" in refused(changed)


# --- readers


@pytest.mark.parametrize(
    "part",
    [
        EBSegConfig,
        ClipConfig,
        SamConfig,
        SwinConfig,
        PixelDecoderConfig,
        TransformerDecoderConfig,
        Balance,
        Weights,
    ],
)
def test_every_field_is_read_somewhere(part: type) -> None:
    read = set()
    for path in Path(model.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    assert [field.name for field in dataclasses.fields(part) if field.name not in read] == []
