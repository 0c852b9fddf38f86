"""Storybook's textures: pattern tells them apart, colour does not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.storybook.classes import STUFF
from training.storybook.textures import PALETTES, SHEET, TEXTURES, paint, ramp

SIDE = 64
SAMPLES = 16  # cuts of each texture: every second one is known, the others are asked about
FREQUENCIES, ORIENTATIONS = 10, 8


def cut(name: str, seed: int, height: int = SIDE, width: int = SIDE, zoom: float = 1.0) -> NDArray[np.uint8]:
    return paint(name, np.random.default_rng([seed, *name.encode()]), height, width, zoom)


@pytest.fixture(scope="module")
def cuts() -> NDArray[np.uint8]:
    """[textures, samples, SIDE, SIDE, 3]."""
    return np.array([[cut(name, seed) for seed in range(SAMPLES)] for name in TEXTURES])


def spectra(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Log power of the grey tones in bins of frequency (half octaves) and orientation, without contrast."""
    grey = pictures.mean(axis=-1)
    grey -= grey.mean(axis=(-2, -1), keepdims=True)
    grey /= grey.std(axis=(-2, -1), keepdims=True) + 1e-6
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power = np.abs(np.fft.fft2(grey * window)) ** 2
    line = np.fft.fftfreq(SIDE) * SIDE
    y, x = np.meshgrid(line, line, indexing="ij")
    octave = np.log2(np.maximum(np.hypot(x, y), 1))
    frequency = np.minimum(2 * octave, FREQUENCIES - 1).astype(int)
    orientation = np.rint(np.arctan2(y, x) / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    bins = (frequency * ORIENTATIONS + orientation).ravel()
    one_hot = np.eye(FREQUENCIES * ORIENTATIONS)[bins]
    found = power.reshape(*power.shape[:-2], -1) @ one_hot / np.maximum(one_hot.sum(axis=0), 1)
    return np.asarray(np.log(found + 1e-3))


def named_right(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each texture's asked cuts whose nearest class mean is their own; chance is 1 / 29."""
    known, asked = features[:, ::2], features[:, 1::2]
    means = known.mean(axis=1)
    spread = (known - means[:, None]).std(axis=(0, 1)) + 1e-6
    nearest = np.linalg.norm((asked[:, :, None] - means) / spread, axis=3).argmin(axis=2)
    return np.asarray((nearest == np.arange(len(features))[:, None]).mean(axis=1))


def test_every_stuff_has_a_texture_in_several_known_colours() -> None:
    assert set(TEXTURES) == set(STUFF)
    for name, (_, palettes) in TEXTURES.items():
        assert 5 <= len(set(palettes)) == len(palettes), name
        assert set(palettes) <= set(PALETTES), name


def test_every_palette_is_used_and_goes_from_dark_to_light() -> None:
    used = {palette for _, palettes in TEXTURES.values() for palette in palettes}
    assert used == set(PALETTES)
    for colours in PALETTES.values():
        brightness = ramp(*colours).mean(axis=1)
        assert (np.diff(brightness) > 0).all()


def test_a_ramp_passes_through_its_three_colours() -> None:
    colours = ramp("000000", "ff8000", "ffffff")
    assert colours.shape == (256, 3)
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[127:129].mean(axis=0) == pytest.approx([255, 128, 0], abs=1)
    assert colours[-1].tolist() == [255, 255, 255]


def test_the_pattern_gives_the_texture_away(cuts: NDArray[np.uint8]) -> None:
    right = dict(zip(TEXTURES, named_right(spectra(cuts)).tolist(), strict=True))
    assert np.mean(list(right.values())) > 0.75  # by nothing but a spectrum; chance is 0.034
    assert {name for name, share in right.items() if share < 0.5} <= {"marble"}  # a spectrum sees no veins


def test_the_colour_does_not(cuts: NDArray[np.uint8]) -> None:
    colours = cuts.mean(axis=(2, 3))
    assert named_right(colours).mean() < 0.25
    known, asked = colours[:, ::2], colours[:, 1::2]
    distance = np.linalg.norm(asked[:, :, None] - known.reshape(-1, 3), axis=3)
    most_similar = distance.argmin(axis=2) // known.shape[1]
    assert (most_similar == np.arange(len(colours))[:, None]).mean() < 0.25


def test_colours_vary_within_every_texture(cuts: NDArray[np.uint8]) -> None:
    spread = cuts.mean(axis=(2, 3)).std(axis=1).max(axis=1)
    assert dict(zip(TEXTURES, spread > 20, strict=True)) == dict.fromkeys(TEXTURES, True)


@pytest.mark.parametrize("name", TEXTURES)
def test_a_cut_has_its_size_contrast_and_seed(name: str) -> None:
    found = cut(name, 1, 40, 70)
    assert found.shape == (40, 70, 3)
    assert found.dtype == np.uint8
    assert found.mean(axis=2).std() > 5
    assert found.tobytes() == cut(name, 1, 40, 70).tobytes()
    assert found.tobytes() != cut(name, 2, 40, 70).tobytes()


def test_a_cut_may_be_larger_than_its_sheet() -> None:
    found = cut("brick wall", 0, SHEET + 60, 40, zoom=0.7)
    assert found[-60:].std() > 5  # the sheet is mirrored at its edge, not stretched or left black


def test_zoom_scales_the_pattern() -> None:
    """Twice the zoom, half the frequency: the same cut, every pixel shown four times."""
    far, near = cut("checked cloth", 3, zoom=1.0), cut("checked cloth", 3, zoom=2.0)
    edges = [np.abs(np.diff(found.mean(axis=2), axis=1)).mean() for found in (far, near)]
    assert edges[1] / edges[0] == pytest.approx(0.5, abs=0.12)


def test_a_sky_fades_once_from_top_to_bottom() -> None:
    rows = cut("sky", 0, 60, 200).mean(axis=(1, 2))
    steps = rows[10:] - rows[:-10]
    assert (steps > 0).all() or (steps < 0).all()
