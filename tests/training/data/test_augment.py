"""Each step of the augmentation by exact values, and the draws by their frequencies."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.config import TrainConfig
from training.data.augment import (
    augment,
    jitter_colors,
    nearest,
    pad,
    random_crop,
    resize,
    saturated,
    scaled,
    to_target,
    trained_indices,
    turned,
)

PLAIN = TrainConfig(
    data="d", variant="tiny", crop=8, short_sides=(8,), color_jitter=False, flip=False, pad_value=77
)


def picture(height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    """Every pixel another one."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y * width + x], -1).astype(np.uint8)


def numbered(height: int = 8, width: int = 8) -> NDArray[np.int64]:
    return np.arange(height * width).reshape(height, width)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_nothing_to_do() -> None:
    found, labels = augment(picture(), numbered(), PLAIN, rng())
    assert (found == picture()).all()
    assert (labels == numbered()).all()
    assert found.dtype == np.uint8


def test_small_pictures_are_padded_at_the_bottom_and_right() -> None:
    found, labels = pad(picture(5, 6), numbered(5, 6), 8, 77)
    assert found.shape == (8, 8, 3)
    assert (found[:5, :6] == picture(5, 6)).all()
    assert (found[5:] == 77).all()
    assert (found[:, 6:] == 77).all()
    assert (labels[:5, :6] == numbered(5, 6)).all()
    assert (labels[5:] == -1).all()
    assert (labels[:, 6:] == -1).all()


def test_crops_go_everywhere_and_move_both_alike() -> None:
    draws = rng()
    corners = set()
    for _ in range(300):
        found, labels = random_crop(picture(10, 12), numbered(10, 12), 8, draws)
        assert found.shape == (8, 8, 3)
        top, left = divmod(int(labels[0, 0]), 12)
        assert (found == picture(10, 12)[top : top + 8, left : left + 8]).all()
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(5)}


def test_a_crop_of_a_narrow_picture_takes_its_width() -> None:
    found, _ = random_crop(picture(10, 5), numbered(10, 5), 8, rng())
    assert found.shape == (8, 5, 3)


def test_short_side_from_the_list_and_long_side_bounded() -> None:
    config = TrainConfig(
        data="d", variant="tiny", crop=64, short_sides=(8, 16), long_side=24, color_jitter=False, flip=False
    )
    draws, sizes = rng(), []
    for _ in range(200):
        _, labels = augment(picture(8, 16), np.zeros((8, 16), np.int64), config, draws)
        sizes.append((int((labels[:, 0] == 0).sum()), int((labels[0] == 0).sum())))
    assert set(sizes) == {(8, 16), (12, 24)}  # 16 x 32 would pass the long side
    assert sizes.count((8, 16)) == pytest.approx(100, abs=25)


def test_labels_are_never_mixed() -> None:
    labels = np.array([[0, 150], [-1, 3]])
    _, larger = resize(np.zeros((2, 2, 3), np.uint8), labels, (6, 6))
    assert (larger == labels.repeat(3, 0).repeat(3, 1)).all()
    assert larger.dtype == np.int64


def test_half_of_the_pictures_are_mirrored() -> None:
    config = TrainConfig(data="d", variant="tiny", crop=8, short_sides=(8,), color_jitter=False)
    draws, mirrored = rng(), 0
    for _ in range(400):
        found, labels = augment(picture(), numbered(), config, draws)
        if labels[0, 0] == 7:
            mirrored += 1
            assert (labels == numbered()[:, ::-1]).all()
            assert (found == picture()[:, ::-1]).all()
        else:
            assert (found == picture()).all()
    assert mirrored == pytest.approx(200, abs=40)


def test_equal_generators_give_equal_bits() -> None:
    config = TrainConfig(data="d", variant="tiny", crop=8, short_sides=(6, 8, 12))
    for seed in range(20):
        one, other = (augment(picture(), numbered(), config, rng(seed)) for _ in range(2))
        assert (one[0] == other[0]).all()
        assert (one[1] == other[1]).all()


# --- colours


def test_brightness_and_contrast_are_cut_off() -> None:
    values = np.array([[[0, 100, 250]]], np.uint8)
    assert scaled(values, 1.0, 20.0).tolist() == [[[20, 120, 255]]]
    assert scaled(values, 1.0, -32.0).tolist() == [[[0, 68, 218]]]
    assert scaled(values, 1.5, 0.0).tolist() == [[[0, 150, 255]]]


def test_saturation_and_hue() -> None:
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert saturated(red, 0.0).tolist() == [[[255, 255, 255]]]
    assert saturated(red, 0.5).tolist() == [[[255, 128, 128]]]
    assert turned(red, 30).tolist() == [[[255, 255, 0]]]  # 60 degrees: yellow
    assert turned(red, -30).tolist() == [[[255, 0, 255]]]
    assert turned(red, 180).tolist() == [[[255, 0, 0]]]
    grey = np.full((1, 1, 3), 90, np.uint8)
    assert (turned(grey, 17) == grey).all()


def test_each_jitter_is_drawn_for_half_of_the_pictures() -> None:
    """One in sixteen stays as it is; the mean brightness of all moves little."""
    draws, original = rng(), np.array([[[180, 60, 90]]], np.uint8)
    found = np.concatenate([jitter_colors(original, draws) for _ in range(1600)]).astype(float)
    same = (found[:, 0] == original[0, 0]).all(-1)
    assert same.sum() == pytest.approx(100, abs=40)
    assert found.mean((0, 1)) == pytest.approx([180, 60, 90], abs=12)
    assert found[:, 0, 0].min() < 100
    assert found[:, 0, 0].max() == 255


# --- targets


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_labels_keep_their_width_through_all_of_it(kind: type[np.signedinteger[Any]]) -> None:
    config = dataclasses.replace(PLAIN, crop=12, short_sides=(10, 14), flip=True, color_jitter=True)
    wide = np.where(numbered() < 8, -1, numbered() % 5)
    for seed in range(8):
        found, labels = augment(picture(), wide.astype(kind), config, rng(seed))
        expected_picture, expected = augment(picture(), wide, config, rng(seed))
        assert labels.dtype == kind
        assert np.array_equal(found, expected_picture)
        assert np.array_equal(labels, expected)
        ours, theirs = (to_target(x, trained_indices([True] * 5)) for x in (labels, expected))
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.masks.equal(theirs.masks)


@pytest.mark.parametrize(("cells", "out"), [(8, 8), (480, 960), (640, 213), (427, 331), (7, 100), (1, 3)])
def test_the_nearest_cell_is_pillows(cells: int, out: int) -> None:
    """Of an axis alone as of a whole map, down and across."""
    numbers = np.arange(cells * 3, dtype=np.int32).reshape(cells, 3)
    image = Image.fromarray(numbers).resize((3, out), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(image), numbers[nearest(cells, out)])
    across = Image.fromarray(numbers.T.copy()).resize((out, 3), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(across), numbers.T[:, nearest(cells, out)])


def test_new_classes_are_ignored_and_the_others_move_up() -> None:
    indices = trained_indices([True, False, True, True])
    assert indices.tolist() == [0, -1, 1, 2]
    labels = np.array([[-1, 0, 1], [2, 3, 3]])
    target = to_target(labels, indices)
    assert target.labels.tolist() == [0, 1, 2]
    assert target.masks.int().tolist() == [
        [[0, 1, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 1, 1]],
    ]


def test_nothing_known() -> None:
    target = to_target(np.array([[-1, 1]]), trained_indices([True, False]))
    assert target.labels.shape == (0,)
    assert target.masks.shape == (0, 1, 2)
