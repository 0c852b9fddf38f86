"""Storybook's sprites: sizes and masks, what varies and what must not give a class away."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.errors import DatasetError
from training.storybook.classes import THINGS
from training.storybook.sprites import Sprite
from training.storybook.things import DRAWINGS, sprite

SEEDS = range(8)
AIRY = ("kite", "butterfly", "umbrella", "sun")


def drawn(name: str, seed: int = 0, height: int = 64) -> Sprite:
    return sprite(name, np.random.default_rng(seed), height)


def labelled(found: Sprite) -> NDArray[np.bool_]:
    return found.mask >= 128


def mean_colour(found: Sprite) -> NDArray[np.float64]:
    return np.asarray(found.rgb[labelled(found)].mean(axis=0))


def grey(found: Sprite) -> NDArray[np.float64]:
    return np.asarray(found.rgb.mean(axis=2))


def test_every_thing_has_a_drawing() -> None:
    assert tuple(DRAWINGS) == THINGS


@pytest.mark.parametrize("name", THINGS)
def test_same_seed_same_bytes_and_another_seed_others(name: str) -> None:
    first, again, other = drawn(name, 1), drawn(name, 1), drawn(name, 2)
    assert first.rgb.tobytes() == again.rgb.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.rgb.tobytes() != other.rgb.tobytes()


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("height", [8, 48, 101])
def test_shapes_and_types(name: str, height: int) -> None:
    found = drawn(name, height=height)
    assert found.rgb.shape == (*found.mask.shape, 3)
    assert found.mask.shape[0] == height
    assert found.rgb.dtype == found.mask.dtype == np.uint8
    assert found.rgb.flags.c_contiguous
    assert found.mask.flags.c_contiguous


@pytest.mark.parametrize("name", THINGS)
def test_masks_are_solid_and_reach_all_four_edges(name: str) -> None:
    for seed in SEEDS:
        found = drawn(name, seed)
        inside = labelled(found)
        assert inside.mean() >= (0.3 if name in AIRY else 0.45)
        assert inside.mean() <= 0.9
        for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
            assert edge.any()
        assert 0 < ((found.mask > 0) & (found.mask < 255)).mean() < 0.2  # an antialiased edge, no veil


@pytest.mark.parametrize("name", THINGS)
def test_widths_vary_around_their_mean(name: str) -> None:
    widths = np.array([found.mask.shape[1] / 64 for found in (drawn(name, seed) for seed in range(24))])
    assert widths.min() > 0.75 * widths.mean()
    assert widths.max() < 1.35 * widths.mean()
    assert np.ptp(widths) > 0.09 * widths.mean()


def test_a_later_draw_from_one_generator_differs() -> None:
    rng = np.random.default_rng(3)
    assert sprite("fish", rng, 40).rgb.tobytes() != sprite("fish", rng, 40).rgb.tobytes()


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(DatasetError, match=r"'castle'.*house, tree, sun.*clock, tent, kite"):
        drawn("castle")


def test_too_small_a_drawing_is_refused() -> None:
    with pytest.raises(DatasetError, match="7 pixels high cannot be drawn; ask for 8"):
        drawn("boat", height=7)
