"""Released weights in and out: every tensor is accounted for, by name."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model import VARIANTS, CheckpointError, ClassName, EBSeg, TrainingClasses
from model.network.build import build
from model.official import load_official, official_names, to_official
from tests.golden.weights import official_shapes

COPIES = {
    "clip_rec_head.ln_post.weight": "clip_visual_extractor.ln_post.weight",
    "clip_rec_head.ln_post.bias": "clip_visual_extractor.ln_post.bias",
    "clip_rec_head.proj": "clip_visual_extractor.proj",
}
CONSTANTS = {"ov_classifier.attn_mask", "criterion.empty_weight"}


@pytest.fixture(scope="module")
def state(tiny: EBSeg) -> dict[str, Tensor]:
    return to_official(tiny)


def refused(state: dict[str, Tensor], **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_official(state, "tiny", **options)
    return str(caught.value)


# --- names


@pytest.mark.parametrize("variant", ["base", "large"])
def test_names_are_the_released_ones(variant: str) -> None:
    """Each of our tensors is one official tensor of its shape; what is left are copies and constants."""
    ebseg = build(VARIANTS[variant], TrainingClasses.coco_stuff(), seed=None)
    names, shapes = official_names(ebseg), official_shapes(variant)
    assert names.keys() == ebseg.state_dict().keys()
    assert len(set(names.values())) == len(names)
    # the copies are ours by the name that they have in the one place or in the other
    copies = {copy if copy not in names.values() else original for copy, original in COPIES.items()}
    assert set(names.values()) | copies | CONSTANTS == set(shapes)
    assert not set(names.values()) & (copies | CONSTANTS)
    for ours, tensor in ebseg.state_dict().items():
        assert list(tensor.shape) == shapes[names[ours]], ours


@pytest.mark.parametrize(
    ("official", "part"),
    [
        ("ov_classifier.bg_embed", "background"),
        ("sem_seg_head.predictor.logit_scale", "transformer_decoder"),
        ("clip_visual_extractor.positional_embedding", "clip_image"),
        # from the block on where the surgery path begins, attention has other names
        ("clip_visual_extractor.resblocks.1.attn.in_proj_weight", "clip_image"),
        ("clip_visual_extractor.resblocks.2.attn.qkv.weight", "clip_image"),
        ("clip_rec_head.resblocks.0.attn.proj.bias", "mask_attention"),
        ("sem_seg_head.clip_fusion_layers.0.1.weight", "fusion"),
        ("sem_seg_head.pixel_decoder.input_proj.2.1.bias", "pixel_decoder"),
    ],
)
def test_parts_of_some_official_tensors(official: str, part: str) -> None:
    names = official_names(build(VARIANTS["base"], TrainingClasses.coco_stuff(), seed=None))
    (ours,) = [name for name, other in names.items() if other == official]
    assert ours.split(".")[0] == part


# --- there and back


def test_there_and_back_is_the_same(tiny: EBSeg, state: dict[str, Tensor]) -> None:
    again = load_official(state, "tiny")
    ours, theirs = tiny.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.config == tiny.config
    assert again.training_classes == tiny.training_classes
    assert not again.training
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in tiny.parameters()]
    back = to_official(again)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_exported_constants(tiny: EBSeg, state: dict[str, Tensor]) -> None:
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in state.values())
    for copy, original in COPIES.items():
        assert torch.equal(state[copy], state[original])
    mask = state["ov_classifier.attn_mask"]
    context = tiny.config.clip.context_length
    assert mask.shape == (context, context)
    assert all(
        mask[i, j] == (-math.inf if j > i else 0) for i in range(0, context, 5) for j in range(context)
    )
    weights = state["criterion.empty_weight"]
    assert weights[:-1].unique().tolist() == [1.0]
    assert weights[-1].item() == pytest.approx(0.1)
    assert len(weights) == 172


def test_half_precision_files_load_as_float32(state: dict[str, Tensor]) -> None:
    ebseg = load_official({name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, "tiny")
    assert {tensor.dtype for tensor in ebseg.state_dict().values()} == {torch.float32}


def test_other_training_classes(tiny: EBSeg, state: dict[str, Tensor]) -> None:
    classes = TrainingClasses.of(["sky", ClassName(name="tree", synonyms=("tree", "oak"))])
    message = refused(state, training_classes=classes)
    assert "criterion.empty_weight is [172] instead of [3]" in message
    fitting = {**state, "criterion.empty_weight": torch.tensor([1, 1, 0.1])}
    ebseg = load_official(fitting, "tiny", training_classes=classes)
    assert ebseg.training_classes == classes
    assert "criterion.empty_weight" in refused(fitting)


# --- refused


def test_unknown_variant(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"'huge'.*tiny"):
        load_official(state, "huge")


@pytest.mark.parametrize(
    "name",
    [
        "backbone.pos_embed",
        "ov_classifier.bg_embed",
        "clip_rec_head.resblocks.0.ln_1.weight",
    ],
)
def test_missing(name: str, state: dict[str, Tensor]) -> None:
    message = refused({key: tensor for key, tensor in state.items() if key != name})
    assert f"1 missing: {name}" in message


def test_many_missing(state: dict[str, Tensor]) -> None:
    message = refused({key: tensor for key, tensor in state.items() if not key.startswith("sem_seg_head")})
    assert "missing: sem_seg_head" in message
    assert len(message) < 1000
    assert "no weights of EBSeg" in refused({})


def test_extra(state: dict[str, Tensor]) -> None:
    message = refused({**state, "backbone.neck.0.weight": torch.zeros(1), "ema.step": torch.zeros(1)})
    assert "2 unknown: backbone.neck.0.weight, ema.step" in message


def test_misshapen(state: dict[str, Tensor]) -> None:
    message = refused({**state, "ov_classifier.bg_embed": torch.zeros(1, 95)})
    assert "ov_classifier.bg_embed is [1, 95] instead of [1, 96]" in message
    swapped = {**state, "clip_rec_head.proj": state["clip_rec_head.proj"].T}
    assert "clip_rec_head.proj is [96, 128] instead of [128, 96]" in refused(swapped)


def test_all_problems_at_once(state: dict[str, Tensor]) -> None:
    message = refused(
        {**state, "ov_classifier.bg_embed": torch.zeros(2), "more": torch.zeros(1)}
        | {"backbone.pos": state["backbone.pos_embed"]}
    )
    assert all(part in message for part in ("2 unknown", "1 misshapen", "ov_classifier.bg_embed", "more"))


def test_weights_of_another_variant() -> None:
    shapes = official_shapes("base")
    base = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with pytest.raises(CheckpointError, match="weights of the variant base, not large: 795 of 795"):
        load_official(base, "large")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    ["backbone.blocks.0.norm1.weight", "ov_classifier.bg_embed", "ov_classifier.token_embedding.weight"],
)
def test_not_a_number(name: str, value: float, state: dict[str, Tensor]) -> None:
    broken = state[name].clone()
    broken.view(-1)[-1] = value
    assert name in refused({**state, name: broken})


@pytest.mark.parametrize("name", sorted({*COPIES, *COPIES.values()}))
def test_changed_copy(name: str, state: dict[str, Tensor]) -> None:
    changed = state[name].clone()
    changed.view(-1)[3] += 1e-3
    message = refused({**state, name: changed})
    assert name in message
    assert "copy" in message


@pytest.mark.parametrize(
    "mask", [torch.zeros(32, 32), torch.full((32, 32), -math.inf).triu(2), torch.full((32, 32), -1e4).triu(1)]
)
def test_another_attention_mask(mask: Tensor, state: dict[str, Tensor]) -> None:
    message = refused({**state, "ov_classifier.attn_mask": mask})
    assert "ov_classifier.attn_mask" in message
    assert "causal" in message


def test_loading_leaves_the_given_tensors_alone(state: dict[str, Tensor]) -> None:
    before = {name: tensor.clone() for name, tensor in state.items()}
    load_official(state, "tiny")
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in state.values())
