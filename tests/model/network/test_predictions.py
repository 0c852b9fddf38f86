"""Predictions of many pictures as one thing: taken apart, put together, moved."""

import dataclasses

import torch
from torch import Tensor

from model import MaskPredictions, StagePredictions

NAMES = ["mask_logits", "supervised", "mask_attention", "frozen"]


def predictions(pictures: int) -> MaskPredictions:
    def numbers(*shape: int, seed: int) -> Tensor:
        return torch.randn(pictures, *shape, generator=torch.Generator().manual_seed(seed))

    return MaskPredictions(
        mask_logits=numbers(5, 8, 6, seed=0),
        supervised=numbers(5, 4, seed=1),
        mask_attention=numbers(5, 4, seed=2),
        frozen=numbers(5, 4, seed=3),
        image_size=(30, 21),
    )


def test_every_tensor_has_its_name() -> None:
    """A field that is added later takes part without anybody's doing."""
    assert list(predictions(1).tensors()) == NAMES
    assert {field.name for field in dataclasses.fields(MaskPredictions)} == {*NAMES, "image_size"}
    assert {field.name for field in dataclasses.fields(StagePredictions)} == set(NAMES[:3])


def test_apart_and_together_again() -> None:
    batch = predictions(3)
    assert len(batch) == 3
    singles = [batch[i] for i in range(3)]
    for i, single in enumerate(singles):
        assert len(single) == 1
        assert single.image_size == (30, 21)
        for name, tensor in single.tensors().items():
            assert torch.equal(tensor, batch.tensors()[name][i : i + 1])
    together = MaskPredictions.cat(singles)
    assert together.image_size == (30, 21)
    for name, tensor in together.tensors().items():
        assert torch.equal(tensor, batch.tensors()[name])


def test_a_function_of_each_tensor() -> None:
    batch = predictions(2)
    doubled = batch.map(lambda tensor: 2 * tensor)
    assert type(doubled) is MaskPredictions
    for name, tensor in doubled.tensors().items():
        assert torch.equal(tensor, 2 * batch.tensors()[name])


def test_a_copy_of_one_does_not_hold_the_batch() -> None:
    """What is kept of a picture must not keep its company in memory."""
    batch = predictions(4)
    one = batch[2]
    assert one.mask_logits.untyped_storage().nbytes() == batch.mask_logits.nbytes
    own = one.map(Tensor.clone)
    for name, tensor in own.tensors().items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert torch.equal(tensor, batch.tensors()[name][2:3])


def test_bytes_and_device() -> None:
    batch = predictions(2)
    assert batch.nbytes == 4 * 2 * (5 * 8 * 6 + 3 * 5 * 4)
    assert batch.device == torch.device("cpu")


def test_stages_are_predictions_without_the_frozen_embeddings() -> None:
    values = predictions(2).tensors()
    stage = StagePredictions(**{name: values[name] for name in NAMES[:3]})
    assert torch.equal(stage[1].supervised, values["supervised"][1:])
    assert type(StagePredictions.cat([stage[0], stage[1]])) is StagePredictions
