"""The client's reader of run lengths, beside pycocotools."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from ebseg_client.errors import AnswerError
from ebseg_client.labels import Maps, labels_of, read_npy, run_lengths
from service.segmentation import encode


def decoded(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
        mask = coco.decode({"size": [height, width], "counts": counts.encode()})
    return np.asarray(mask, bool)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    classes=st.integers(1, 9),
    coarse=st.booleans(),
)
def test_label_maps_and_masks_come_back(
    seed: int, height: int, width: int, classes: int, coarse: bool
) -> None:
    random = np.random.default_rng(seed)
    side = 8 if coarse else 1
    small = random.integers(0, classes + 1, (height, width), np.uint16)
    labels = small.repeat(side, 0).repeat(side, 1)[:height, :width]
    rles = encode.rles(labels, classes)
    counts = tuple(rle["counts"] for rle in rles)
    assert (labels_of(counts, height, width) == labels).all()
    maps = Maps(height, width, rles=counts)
    for label in range(1, classes + 1):
        assert (maps.mask(label) == decoded(counts[label - 1], height, width)).all()
    assert (maps.labels == labels).all()
    assert (maps.mask(1) == (labels == 1)).all()


def test_long_runs() -> None:
    labels = np.zeros((3000, 2000), np.uint16)
    labels[100:2900, 5:1900] = 1
    (rle,) = encode.rles(labels, 1)
    assert sum(run_lengths(rle["counts"])) == 6_000_000
    assert (labels_of([rle["counts"]], 3000, 2000) == labels).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("1 ", "the character ' '"),
        ("1é", "the character"),
        ("P", "end within a number"),
        ("1", "1 pixels, expected 6"),
        ("7", "7 pixels, expected 6"),
        ("O7", "expected 6"),  # a negative run whose sum would fit
        (40 * "o" + "0", "beyond all numbers"),
    ],
)
def test_damaged_run_lengths(counts: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        labels_of([counts], 2, 3)


def test_damaged_run_lengths_take_no_memory() -> None:
    with pytest.raises(AnswerError, match="1 pixels, expected 1000000000000000000"):
        labels_of(["1"], 10**9, 10**9)


def test_damaged_files() -> None:
    with pytest.raises(AnswerError, match="array that cannot be read"):
        read_npy(b"\x93NUMPY and then nothing")
    with pytest.raises(AnswerError, match="array that cannot be read"):
        read_npy(b"\x80\x04N.")  # a pickle
    with pytest.raises(AnswerError, match="label map that cannot be read"):
        _ = Maps(1, 1, png=b"no png").labels
    two = encode.npy(np.ones((2, 2), np.uint16))
    with pytest.raises(AnswerError, match=r"\(2, 2\), expected \(1, 1\)"):
        _ = Maps(1, 1, npy=two).labels
