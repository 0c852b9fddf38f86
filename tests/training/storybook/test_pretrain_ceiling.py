"""The ceiling: true masks are named by their embeddings, training and new classes apart."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import EBSeg, TrainingClasses
from model.network.build import build
from tests.pretended import pretended_device
from tests.training.run.runs import micro_config
from training.storybook.classes import CLASSES, NEW, TRAINED
from training.storybook.pretrain import ceiling as module
from training.storybook.pretrain.ceiling import ceiling
from training.storybook.pretrain.pictures import Pool

SIDE = 32
SHOWN = ("grass", "snow", "house", "boat")  # two training classes and two new ones, a quarter each


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    return build(micro_config(), TrainingClasses.of(TRAINED), seed=0)


@pytest.fixture(scope="module")
def data() -> Pool:
    """Three pictures whose red channel is the label; of "tent" there is too little to be asked about."""
    labels = np.zeros((3, SIDE, SIDE), np.uint8)
    labels[:] = np.repeat([CLASSES.index(name) for name in SHOWN], SIDE // 4)
    labels[:, :4, :4] = CLASSES.index("tent")
    noise = np.random.default_rng(0).integers(0, 255, (*labels.shape, 2), dtype=np.uint8)
    return Pool(
        pictures=np.concatenate([labels[..., None], noise], axis=3),
        labels=labels,
        mentioned=np.zeros((3, len(CLASSES)), bool),
        captions=["", "", ""],
    )


def true_labels(masks: Tensor, picture: NDArray[np.uint8]) -> list[int]:
    """The class of each mask, read off the red channel."""
    red = torch.from_numpy(picture[..., 0].astype(np.int64))
    return [int(red[mask > 0].unique().item()) for mask in masks]


def test_on_another_device_it_is_the_same(data: Pool) -> None:
    own = build(micro_config(), TrainingClasses.of(TRAINED), seed=0)
    wanted = ceiling(own, data, 2)
    with pretended_device() as device:
        found = ceiling(own.to(device), data, 2)
    assert np.array_equal(found.by_class, wanted.by_class, equal_nan=True)


def test_an_untrained_model_gives_shares(ebseg: EBSeg, data: Pool) -> None:
    found = ceiling(ebseg, data, 2)
    four = (
        found.frozen_trained,
        found.frozen_new,
        found.mask_attention_trained,
        found.mask_attention_new,
    )
    assert all(0 <= share <= 1 for share in four)
    assert found.least == min(four)
    asked = np.isin(CLASSES, SHOWN)
    assert found.by_class.shape == (2, len(CLASSES))
    assert np.isfinite(found.by_class[:, asked]).all()
    assert np.isnan(found.by_class[:, ~asked]).all()


def test_perfect_embeddings_reach_one(ebseg: EBSeg, data: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    text = ebseg.encode_text(CLASSES)

    def perfect(_: EBSeg, picture: NDArray[np.uint8], masks: Tensor) -> tuple[Tensor, Tensor]:
        rows = text[true_labels(masks, picture)]
        return 0.1 * rows, rows

    monkeypatch.setattr(module, "_embeddings", perfect)
    found = ceiling(ebseg, data, 3)
    assert found.least == 1.0
    assert np.nansum(found.by_class, axis=1).tolist() == [4, 4]


def test_wrong_names_count_against_their_own_side_and_embedding(
    ebseg: EBSeg, data: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D takes "boat" for a mushroom, B takes "grass" for it in the first picture of two."""
    text = ebseg.encode_text(CLASSES)
    mushroom, boat, grass = (CLASSES.index(name) for name in ("mushroom", "boat", "grass"))

    def named(_: EBSeg, picture: NDArray[np.uint8], masks: Tensor) -> tuple[Tensor, Tensor]:
        first = picture.tobytes() == data.pictures[0].tobytes()
        true = true_labels(masks, picture)
        frozen = [mushroom if c == boat else c for c in true]
        mask_attention = [mushroom if c == grass and first else c for c in true]
        return text[frozen], text[mask_attention]

    monkeypatch.setattr(module, "_embeddings", named)
    found = ceiling(ebseg, data, 2)
    assert (found.frozen_trained, found.frozen_new) == (1.0, 0.5)
    assert (found.mask_attention_trained, found.mask_attention_new) == (0.75, 1.0)
    assert found.least == 0.5
    assert found.by_class[:, boat].tolist() == [0.0, 1.0]
    assert found.by_class[:, grass].tolist() == [1.0, 0.5]
    assert "mushroom" in NEW


def test_frozen_embeddings_are_means_over_a_mask_and_others_see_only_it(ebseg: EBSeg, data: Pool) -> None:
    """On the grid of 4 x 4 patches the left half, the right half and all of a picture."""
    left = torch.zeros(SIDE, SIDE)
    left[:, : SIDE // 2] = 1
    masks = torch.stack([left, 1 - left, torch.ones(SIDE, SIDE)])
    with torch.inference_mode():
        frozen, mask_attention = module._embeddings(ebseg, data.pictures[0], masks)
    assert frozen.shape == mask_attention.shape == (3, ebseg.config.clip.joint_width)
    torch.testing.assert_close(frozen[2], (frozen[0] + frozen[1]) / 2)
    torch.testing.assert_close(mask_attention.norm(dim=-1), torch.ones(3))
    assert (mask_attention[0] - mask_attention[1]).abs().max() > 1e-4
