"""First values of a model's trained tensors: the bounds of each, as the official training sets them."""

import math

import pytest
import torch
from torch import Tensor, nn

from model.network.build import build
from model.network.config import VARIANTS
from model.network.ebseg import EBSeg
from model.vocabulary.classes import TrainingClasses

ZERO = (
    "sampling_offsets.weight",
    "attention_weights.weight",
    "attention_weights.bias",
    "value_proj.bias",
    "output_proj.bias",
    "in_proj_bias",
    "out_proj.bias",
    "conv.bias",
)


@pytest.fixture(scope="module")
def fresh() -> EBSeg:
    return build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=11)


def uniform(values: Tensor, bound: float) -> bool:
    """Whether values fill (-bound, bound) evenly: none beyond, the spread of a uniform."""
    largest = values.abs().max().item()
    few = values.numel() < 100
    return (
        largest <= bound
        and (few or largest > 0.95 * bound)
        and (few or math.isclose(values.std().item(), bound / math.sqrt(3), rel_tol=0.08))
    )


def xavier(weight: Tensor) -> float:
    fan_out, fan_in = weight.shape[0], weight[0].numel()
    return math.sqrt(6 / (fan_in + fan_out))


def caffe2(weight: Tensor) -> float:
    return math.sqrt(3 / weight[0].numel())


def default(weight: Tensor) -> float:
    return 1 / math.sqrt(weight[0].numel())


@torch.no_grad()
def test_layers_are_xaviers(fresh: EBSeg) -> None:
    pixel, decoder = fresh.pixel_decoder, fresh.transformer_decoder
    checked = 0
    for layers in (pixel.layers, pixel.input_projections, decoder.layers):
        for name, values in layers.named_parameters():
            zero = name.endswith(ZERO)
            if zero:
                assert values.abs().max() == 0, name
            elif values.dim() > 1:
                assert uniform(values, xavier(values)), name
                checked += 1
    assert checked == 2 * 4 + 3 + 4 * 6


@torch.no_grad()
def test_convolutions_of_the_pixel_decoder_are_caffe2s(fresh: EBSeg) -> None:
    pixel = fresh.pixel_decoder
    for convolution in (pixel.lateral.conv, pixel.output.conv, pixel.mask_features):
        assert uniform(convolution.weight, caffe2(convolution.weight))
    assert pixel.mask_features.bias is not None
    assert pixel.mask_features.bias.abs().max() == 0


@torch.no_grad()
def test_heads_fusion_and_feed_forward_biases_keep_torchs_values(fresh: EBSeg) -> None:
    decoder = fresh.transformer_decoder
    checked = 0
    for part in (
        decoder.mask_embed,
        decoder.class_embed,
        decoder.bias_embed,
        decoder.pool_linear,
        fresh.fusion,
    ):
        for module in part.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                assert uniform(module.weight, default(module.weight))
                assert module.bias is not None
                assert uniform(module.bias, default(module.weight))
                assert module.bias.abs().max() > 0
                checked += 1
    assert checked == 3 * 3 + 1 + 3
    scale = decoder.bias_scaling
    assert 0 < abs(scale.weight.item()) <= 1
    assert 0 < abs(scale.bias.item()) <= 1
    for layer in (*fresh.pixel_decoder.layers, *decoder.layers):
        for linear in (layer.linear1, layer.linear2):
            assert isinstance(linear, nn.Linear)
            assert 0 < linear.bias.abs().max() <= default(linear.weight)


@torch.no_grad()
def test_tables_are_normal_and_norms_are_one(fresh: EBSeg) -> None:
    decoder = fresh.transformer_decoder
    tables = (fresh.pixel_decoder.level_embed, decoder.level_embed, decoder.query_features)
    for table in (*tables, decoder.query_places):
        assert table.std().item() == pytest.approx(1, abs=0.15)
    for name, module in fresh.named_modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm) and name.startswith(("fusion", "pixel", "transf")):
            assert (module.weight == 1).all(), name
            assert (module.bias == 0).all(), name
    assert decoder.embedding_scale.item() == 1


def test_the_same_seed_gives_the_same_values(fresh: EBSeg) -> None:
    again = build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=11).state_dict()
    other = build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=12).state_dict()
    assert all(values.equal(again[name]) for name, values in fresh.state_dict().items())
    name = "transformer_decoder.mask_embed.layers.0.bias"
    assert not again[name].equal(other[name])
