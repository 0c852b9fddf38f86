"""Run lengths against hand-made masks and COCO's own encoder."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from training.data.prepare import rle


def test_runs_go_down_the_columns() -> None:
    assert rle.decode([1, 2, 3], 2, 3).tolist() == [[False, True, False], [True, False, False]]
    assert rle.decode("123", 2, 3).tolist() == [[False, True, False], [True, False, False]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_as_the_official_encoder(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(rle.decode(text, height, width), mask)


def test_long_runs() -> None:
    mask = np.zeros((500, 375), bool)
    mask[3:490, 20:350] = True
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(rle.decode(text, 500, 375), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "runs of 3 pixels do not fill a mask of 3 x 2"),
        ([7, -1], "do not fill"),
        ("12\x7f", "no character of run lengths"),
        ("12P", "end within a number"),
    ],
)
def test_damaged_runs(counts: str | list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.decode(counts, 2, 3)
