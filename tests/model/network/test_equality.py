"""What is left out of the official work, against plain.py, which leaves out nothing.

The encoders have files of their own: test_sam.py, test_clip_text.py; so has deformable attention.
"""

import copy
import math

import pytest
import torch
from torch import Tensor

from model import EBSeg, MaskPredictions
from model.network.clip_image import ClipFeatures
from tests.golden.weights import picture
from tests.model import plain_encoders
from tests.model.plain import Plain, Stage

TOLERANCE = 1e-5  # float32 against float64, relative to the largest value
EXACT = 1e-12  # float64 against float64
NOISE = 5e-6  # a mask logit nearer to the threshold than this may change sides in float32


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found.double() - wanted.double()).abs().max() / wanted.abs().max())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """Their mask logits keep away from the threshold; neither edge is a multiple of 32."""
    return torch.stack([picture(70, 93, 1.65), picture(70, 93, 2.05)])


@pytest.fixture(scope="module")
def plain(uneven: EBSeg) -> Plain:
    return Plain(uneven)


@pytest.fixture(scope="module")
def plain_stages(plain: Plain, pictures: Tensor) -> list[Stage]:
    stages = plain.stages(pictures)
    assert plain.margin > NOISE, "other images are needed: these have mask logits too near to 0"
    return stages


@pytest.fixture(scope="module")
def predictions(uneven: EBSeg, pictures: Tensor) -> MaskPredictions:
    return uneven.predict(pictures)


@pytest.fixture(scope="module")
def double(uneven: EBSeg) -> EBSeg:
    """The same weights in float64, for the parts that can run in it."""
    return copy.deepcopy(uneven).double()


# --- the whole


@pytest.mark.parametrize("name", ["mask_logits", "supervised", "mask_attention", "frozen"])
def test_predict_is_the_plain_last_stage(
    name: str, predictions: MaskPredictions, plain_stages: list[Stage]
) -> None:
    found, wanted = getattr(predictions, name), getattr(plain_stages[-1], name)
    assert found.dtype == torch.float32
    assert error(found, wanted) <= TOLERANCE
    # queries and pictures are so different that mixing them up would show
    assert wanted.std(0).max() > 100 * TOLERANCE
    assert wanted.std(1).max() > 100 * TOLERANCE


def test_stages_are_the_plain_ones(uneven: EBSeg, pictures: Tensor, plain_stages: list[Stage]) -> None:
    with torch.no_grad():
        stages = uneven.stages(pictures)
    assert len(stages) == len(plain_stages) == 10
    for found, wanted in zip(stages, plain_stages, strict=True):
        assert error(found.mask_logits, wanted.mask_logits) <= TOLERANCE
        assert error(found.supervised, wanted.supervised) <= TOLERANCE
        assert error(found.mask_attention, wanted.mask_attention) <= TOLERANCE


def test_in_float64_they_are_the_same(double: EBSeg, pictures: Tensor, plain_stages: list[Stage]) -> None:
    """But for position encodings, which are kept in float32."""
    predictions = double.predict(pictures)
    for name in ("mask_logits", "supervised", "mask_attention", "frozen"):
        assert error(getattr(predictions, name), getattr(plain_stages[-1], name)) <= 1e-7
    with torch.no_grad():
        stages = double.stages(pictures)
    for found, wanted in zip(stages, plain_stages, strict=True):
        assert error(found.mask_attention, wanted.mask_attention) <= 1e-7


def test_predict_is_the_last_of_the_stages(
    uneven: EBSeg, pictures: Tensor, predictions: MaskPredictions
) -> None:
    """Nine stages' heads, pooling and passes through CLIP's last blocks are for training alone."""
    with torch.no_grad():
        last = uneven.stages(pictures)[-1]
    assert error(predictions.mask_logits, last.mask_logits) <= TOLERANCE
    assert error(predictions.supervised, last.supervised) <= TOLERANCE
    assert error(predictions.mask_attention, last.mask_attention) <= TOLERANCE


def test_predictions_tell_the_size_before_padding(predictions: MaskPredictions) -> None:
    assert predictions.image_size == (70, 93)
    assert predictions.mask_logits.shape == (2, 12, 96 // 4, 96 // 4)
    assert len(predictions) == 2
    assert torch.equal(predictions[1].frozen, predictions.frozen[1:])


def test_half_precision_is_near(uneven: EBSeg, pictures: Tensor, plain_stages: list[Stage]) -> None:
    """A query of random weights may have a mask of few pixels, where one flipped pixel turns the embedding;
    which pixels flip depends on the processor's products. So `frozen` is compared where the masks agree."""
    half = copy.deepcopy(uneven).to_compute_dtype(torch.bfloat16)
    predictions, wanted = half.predict(pictures), plain_stages[-1]
    near = {
        name: torch.cosine_similarity(getattr(predictions, name).double(), getattr(wanted, name), dim=-1)
        for name in ("supervised", "mask_attention", "frozen")
    }
    flipped = ((predictions.mask_logits > 0) != (wanted.mask_logits > 0)).flatten(2).sum(-1)
    pooled = wanted.frozen.abs().amax(-1) > 0  # no pixel at the resolution of CLIP's features pools to nought
    kept = pooled & ((wanted.mask_logits > 0).flatten(2).sum(-1) > 50 * flipped)
    assert kept.sum() >= 3
    assert near["supervised"].median() >= 0.995
    assert near["mask_attention"].median() >= 0.995
    assert near["frozen"][kept].median() >= 0.995
    assert all(getattr(predictions, name).dtype == torch.float32 for name in near)
    assert half.pixel_decoder.mask_features.weight.dtype == torch.float32
    assert torch.equal(half.encode_text(["cat"]), uneven.encode_text(["cat"]))


# --- one by one


@pytest.mark.parametrize("scale", [-3.0, 0.5])
@pytest.mark.parametrize("grid", [(4, 6), (3, 5), (8, 12), (9, 13)])
@torch.no_grad()
def test_bias_is_folded_into_the_queries(
    scale: float, grid: tuple[int, int], double: EBSeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for grids that do not divide the map, or are finer, and where scaling turns maxima over."""
    decoder, slow = double.transformer_decoder, Plain(double)
    channels = double.config.hidden
    normed, features = noise(2, 5, channels), noise(2, channels, 8, 12, seed=1)
    parameter = decoder.bias_scaling.weight
    monkeypatch.setitem(
        slow.weights, "transformer_decoder.bias_scaling.weight", torch.full_like(parameter, scale)
    )
    with monkeypatch.context() as patch:
        patch.setattr(parameter, "data", torch.full_like(parameter, scale))
        found = decoder.attention_bias(
            decoder.mask_embed(normed), decoder.bias_features(features), (8, 12), grid
        )
    assert error(found, slow.attention_bias(normed, features, grid)) <= EXACT


@pytest.mark.parametrize("unseen", [-100.0, -math.inf])
@torch.no_grad()
def test_queries_are_extra_rows(unseen: float, double: EBSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against attention of [queries, class token, pixels] to themselves under one mask, on both paths."""
    monkeypatch.setattr(plain_encoders, "UNSEEN", unseen)
    clip, grid, queries = double.config.clip, (3, 4), 7
    tokens, surgery = noise(2, 13, clip.image_width), noise(2, 13, clip.image_width, seed=1)
    bias = 3 * noise(2, clip.image_heads, queries, 12, seed=2)
    features = ClipFeatures(layers=[], tokens=tokens, surgery=surgery[:, 1:], grid=grid)
    embeddings, f_clip = double.mask_attention(features, bias)
    wanted, wanted_f_clip = Plain(double).mask_attention(tokens, surgery, grid, bias)
    assert error(embeddings, wanted) <= EXACT
    assert error(f_clip, wanted_f_clip) <= EXACT
    assert wanted.std(1).max() > 0.01


@torch.no_grad()
def test_surgery_path_changes_nothing_else(double: EBSeg) -> None:
    clip, grid = double.config.clip, (3, 4)
    tokens, bias = noise(1, 13, clip.image_width), noise(1, clip.image_heads, 7, 12, seed=2)
    without = ClipFeatures(layers=[], tokens=tokens, surgery=None, grid=grid)
    beside = ClipFeatures(layers=[], tokens=tokens, surgery=tokens[:, 1:], grid=grid)
    embeddings, f_clip = double.mask_attention(without, bias)
    assert f_clip is None
    assert torch.equal(embeddings, double.mask_attention(beside, bias)[0])
    images = noise(1, 3, 45, 67)
    for found, wanted in zip(
        double.clip_image(images, False).layers, double.clip_image(images, True).layers, strict=True
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("size", [(32, 64), (64, 96), (183, 183)])
@torch.no_grad()
def test_clip_tower(size: tuple[int, int], double: EBSeg) -> None:
    """Sizes that lose an edge; the largest has the grid that the position table was made for."""
    images = noise(1, 3, *size)
    slow = Plain(double)
    layers, tokens, surgery, grid = slow.clip(images)
    shrunk = torch.nn.functional.interpolate(images, scale_factor=0.7, mode="bilinear")
    found = double.clip_image(shrunk, surgery=True)
    assert found.grid == grid
    assert error(found.tokens, tokens) <= EXACT
    assert error(found.surgery, surgery[:, 1:]) <= EXACT
    for layer, wanted in zip(found.layers, layers, strict=True):
        assert error(layer, wanted) <= EXACT


@torch.no_grad()
def test_mask_features_shrink_once(uneven: EBSeg, plain: Plain) -> None:
    """The decoder's attention masks, against every mask made at full size and then resized."""
    channels = uneven.config.hidden
    maps = [noise(2, channels, *size, seed=i) for i, size in enumerate([(2, 3), (4, 6), (8, 12)])]
    mask_features = noise(2, channels, 16, 24, seed=9)
    plain.margin = math.inf
    wanted = plain.decoder(maps, mask_features)
    assert plain.margin > NOISE
    decoder = uneven.transformer_decoder
    found = decoder([x.float() for x in maps], mask_features.float(), all_stages=True)
    assert len(found) == len(wanted) == 10
    for stage, plain_stage in zip(found, wanted, strict=True):
        assert error(stage, plain_stage) <= TOLERANCE
    (last,) = decoder([x.float() for x in maps], mask_features.float(), all_stages=False)
    assert error(last, wanted[-1]) <= TOLERANCE


@pytest.mark.parametrize("padded", [(64, 96), (128, 32)])
@torch.no_grad()
def test_projection_before_resizing(padded: tuple[int, int], uneven: EBSeg, plain: Plain) -> None:
    """Fusion and pixel decoder, against maps resized and added first, and projected then."""
    config = uneven.config
    grid, clip_grid = (padded[0] // 16, padded[1] // 16), (padded[0] // 11, padded[1] // 11)
    backbone = [noise(2, config.backbone_widths[i], *grid, seed=i) for i in range(4)]
    clip = [noise(2, config.clip.image_width, *clip_grid, seed=i) for i in range(4, 7)]
    maps, features = plain.pixel_decoder(plain.fused(backbone, clip, padded))
    levels = uneven.fusion([x.float() for x in backbone], [x.float() for x in clip])
    found, found_features = uneven.pixel_decoder(levels, padded)
    for x, wanted in zip(found, maps, strict=True):
        assert error(x, wanted) <= TOLERANCE
    assert error(found_features, features) <= TOLERANCE


@torch.no_grad()
def test_empty_masks(uneven: EBSeg, plain: Plain) -> None:
    """A query whose mask is empty everywhere looks at all pixels, and pools nothing."""
    channels = uneven.config.hidden
    maps = [noise(1, channels, *size, seed=i) for i, size in enumerate([(2, 3), (4, 6), (8, 12)])]
    # one channel repeated: a query's logits have the same sign everywhere
    mask_features = noise(1, channels, 1, 1, seed=7).expand(-1, -1, 16, 24).contiguous()
    wanted = plain.decoder(maps, mask_features)
    decoder = uneven.transformer_decoder
    found = decoder([x.float() for x in maps], mask_features.float(), all_stages=True)
    masks = plain.masks(wanted[-1], mask_features)
    empty = (masks < 0).flatten(2).all(-1)
    assert 0 < empty.sum() < empty.numel()
    assert error(found[-1], wanted[-1]) <= TOLERANCE
    read = decoder.read(found[-1], mask_features.float())
    assert error(read.supervised, plain.supervised(wanted[-1], masks, mask_features)) <= TOLERANCE
