"""Regions: connected components as SciPy finds them, with bounds, and nothing lost without a word."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from service.errors import DeadlineExceededError
from service.scheduling.deadline import Deadline
from service.segmentation import regions
from service.segmentation.regions import RegionSet, find_regions

Labels = NDArray[np.uint16]
EDGES = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@st.composite
def label_maps(draw: st.DrawFn) -> Labels:
    height, width, classes = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(0, classes), min_size=height * width, max_size=height * width))
    return np.array(values, np.uint16).reshape(height, width)


def sure(labels: Labels) -> NDArray[np.float32]:
    return np.random.default_rng(labels.size).random(labels.shape, np.float32)


def every(labels: Labels, min_area: int = 1, max_count: int = 10_000) -> RegionSet:
    return find_regions(labels, sure(labels), min_area=min_area, max_count=max_count)


def expected(labels: Labels) -> list[tuple[int, NDArray[np.bool_]]]:
    """Class and mask of each component, class by class."""
    found = []
    for label in range(1, int(labels.max(initial=0)) + 1):
        numbers, count = ndimage.label(labels == label, EDGES)
        found += [(label, numbers == number) for number in range(1, count + 1)]
    return found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(label_maps())
def test_they_are_the_components_of_each_class(labels: Labels) -> None:
    found, wanted = every(labels), expected(labels)
    assert (len(found), found.left_out, found.left_out_area) == (len(wanted), 0, 0)
    masks = {mask.tobytes(): label for label, mask in wanted}
    confidence = sure(labels)
    for at in range(len(found)):
        mask = found.numbers == at + 1
        assert masks.pop(mask.tobytes()) == found.labels[at]
        y, x = np.nonzero(mask)
        assert found.boxes[at].tolist() == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert found.areas[at] == mask.sum()
        assert found.scores[at] == pytest.approx(confidence[mask].mean(), rel=1e-5)
    assert masks == {}
    keys = list(zip(found.labels, -found.areas, strict=True))
    assert keys == sorted(keys)


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(3).integers(0, 3, (60, 50)).astype(np.uint16)
    whole = every(labels)
    monkeypatch.setattr(regions, "BAND", 120)
    banded = every(labels)
    assert (whole.boxes == banded.boxes).all()
    assert whole.scores == pytest.approx(banded.scores)


def test_small_ones_and_too_many_are_left_out_and_counted() -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[0:5, 0:5], labels[0:2, 10:12], labels[10:13, 0:3], labels[19, 29] = 1, 1, 2, 2  # 25, 4, 9, 1
    found = every(labels, min_area=4)
    assert (found.areas.tolist(), found.left_out, found.left_out_area) == ([25, 4, 9], 1, 1)
    assert found.numbers[19, 29] == 0
    found = every(labels, max_count=2)
    assert (found.labels.tolist(), found.areas.tolist()) == ([1, 2], [25, 9])
    assert (found.left_out, found.left_out_area) == (2, 5)
    found = every(labels, min_area=26)
    assert (len(found), found.left_out, found.left_out_area) == (0, 4, 39)
    assert not found.numbers.any()


def test_of_equal_ones_the_first_stay() -> None:
    labels = np.zeros((8, 8), np.uint16)
    labels[::2, ::2] = 1
    found = every(labels, max_count=3)
    assert found.boxes.tolist() == [[0, 0, 1, 1], [2, 0, 1, 1], [4, 0, 1, 1]]


def test_a_million_specks_take_bounded_memory() -> None:
    labels = np.random.default_rng(0).integers(1, 200, (1200, 1000)).astype(np.uint16)
    confidence = sure(labels)
    tracemalloc.start()
    try:
        found = find_regions(labels, confidence, min_area=1, max_count=100)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(found), found.left_out > 1_000_000) == (100, True)
    assert peak / labels.size < 64  # bytes; specks have a number each beside the maps
    assert found.left_out_area + found.areas.sum() == labels.size


def test_a_deadline_ends_it() -> None:
    labels = np.ones((4, 4), np.uint16)
    with pytest.raises(DeadlineExceededError):
        find_regions(labels, sure(labels), min_area=1, max_count=1, check=Deadline(0).check)
