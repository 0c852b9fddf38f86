"""The palette: apart for eyes, and none too dark, light, pale or gaudy to lie over a photograph."""

import cv2
import numpy as np
import pytest

from model.pictures.palette import palette


def test_a_shorter_palette_is_the_beginning_of_a_longer_one() -> None:
    long = palette(1024)
    assert len(np.unique(long, axis=0)) == 1024
    for count in (0, 1, 12, 150):
        assert (palette(count) == long[:count]).all()
    assert palette(10_000).shape == (10_000, 3)  # they come again


@pytest.mark.parametrize(("count", "least"), [(6, 35), (12, 20), (24, 14)])
def test_colors_are_apart_in_cielab(count: int, least: float) -> None:
    lab = cv2.cvtColor(palette(count)[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(count, dtype=bool)]
    assert apart.min() > least


def test_colors_are_made_for_overlays() -> None:
    """In CIELAB: lighter than dark outlines, darker than paper, and coloured; no corner of the RGB cube."""
    lab = cv2.cvtColor(palette(1024)[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert lab[:, 0].min() > 40
    assert lab[:, 0].max() < 90
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    assert chroma.min() > 15
    assert chroma.max() < 90
    extremes = (palette(64) == 0) | (palette(64) == 255)
    assert not extremes.all(1).any()
