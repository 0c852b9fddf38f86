"""Run lengths and boxes: what pycocotools makes and reads, whatever the bands, in little memory."""

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.segmentation import run_lengths
from service.segmentation.run_lengths import RunLengths, rles

Labels = NDArray[np.uint16]


@st.composite
def label_maps(draw: st.DrawFn) -> Labels:
    height, width, classes = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(0, classes), min_size=height * width, max_size=height * width))
    return np.array(values, np.uint16).reshape(height, width)


def from_rle(rle: dict[str, Any]) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
        decoded: NDArray[np.uint8] = coco.decode(rle)
    return decoded.astype(bool)


def of_pycocotools(mask: NDArray[np.bool_]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: dict[str, Any] = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": made["size"], "counts": made["counts"].decode()}


def box_of(mask: NDArray[np.bool_]) -> list[int] | None:
    if not mask.any():
        return None
    y, x = np.nonzero(mask)
    return [int(x.min()), int(y.min()), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(label_maps(), st.sampled_from([1, 3, 10, 1 << 18]))
def test_run_lengths_are_those_of_pycocotools_in_bands_of_any_size(labels: Labels, band: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_lengths, "BAND", band)
        found = RunLengths(labels, 4, texts=True)
        assert RunLengths(labels, 4, texts=False).boxes() == found.boxes()
    masks = [labels == label for label in range(1, 5)]
    made = found.rles()
    assert found.rles() == made  # asking changes nothing
    assert made == list(map(of_pycocotools, masks))
    assert all(np.array_equal(from_rle(rle), mask) for rle, mask in zip(made, masks, strict=True))
    assert found.boxes() == list(map(box_of, masks))


@pytest.mark.parametrize("shape", [(1, 900_000), (900_000, 1), (700, 1300)])
@pytest.mark.parametrize("side", [1, 90, 2000])
def test_large_counts_and_real_bands(shape: tuple[int, int], side: int) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 3, (-(-shape[0] // side), -(-shape[1] // side)))
    labels = blocks[np.ix_(np.arange(shape[0]) // side, np.arange(shape[1]) // side)].astype(np.uint16)
    assert rles(labels, 3) == [of_pycocotools(labels == label) for label in (1, 2, 3)]
    assert rles(labels.astype(np.int32), 1) == [of_pycocotools(labels == 1)]


def test_no_class_has_no_run_lengths() -> None:
    assert rles(np.zeros((2, 3), np.uint16), 0) == []


@pytest.mark.parametrize("kind", ["noise", "board"])
def test_label_maps_that_are_noise_take_little_beside_their_texts(kind: str) -> None:
    rows, columns = 1500, 2000
    noise = np.random.default_rng(0).integers(0, 8, (rows, columns))
    labels = (noise if kind == "noise" else np.indices((rows, columns)).sum(0) % 2 + 1).astype(np.uint16)
    tracemalloc.start()
    try:
        found = rles(labels, 8)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    texts = sum(len(one["counts"]) for one in found)
    assert texts <= 2.1 * labels.size  # what a request reserves, see `host_memory`
    assert peak < 2 * texts + 40 * (1 << 20)  # 22 bytes a pixel here, and 4 of pictures of fifty megapixels
