"""Label maps to polygons."""

import time
from statistics import median
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from service.errors import DeadlineExceededError
from service.schemas.masks import Polygon
from service.segmentation import polygons as module
from service.segmentation.polygons import CORNER_BLOCK, polygons
from service.segmentation.run_lengths import RunLengths

Labels = NDArray[np.uint16]
Ring = list[list[int]]
CLASSES = 4
label_maps = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, CLASSES)).flatmap(
    lambda drawn: arrays(np.uint16, drawn[:2], elements=st.integers(0, drawn[2]))
)


def traced(labels: Labels, label: int) -> list[dict[str, list[Any]]]:
    """Regions of one label by OpenCV, which `polygons` has to find vertex for vertex."""
    rows, columns = (np.flatnonzero((labels == label).any(axis)) for axis in (1, 0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    mask = (labels[top : rows[-1] + 1, left : columns[-1] + 1] == label).astype(np.uint8)
    # OpenCV's contours run through the centres of border pixels. With every pixel doubled, the centres
    # of the small pixels tell on which side of the large one the border is.
    doubled = mask.repeat(2, 0).repeat(2, 1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    regions: dict[int, dict[str, list[Any]]] = {}
    for index, parent in enumerate(hierarchy[0][:, 3]):
        if parent < 0:
            regions[index] = {"exterior": _corners(contours[index], left, top), "holes": []}
    for index, parent in enumerate(hierarchy[0][:, 3]):
        if parent >= 0:
            regions[int(parent)]["holes"].append(_corners(contours[index], left, top))
    return list(regions.values())


def _corners(contour: NDArray[np.int32], left: int, top: int) -> Ring:
    """Contour of the doubled mask [N, 1, 2] to pixel corners, without points inside straight edges."""
    points = (contour[:, 0] + 1) // 2
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    step = points - np.roll(points, 1, 0)
    turns = (step != np.roll(step, -1, 0)).any(1)
    corners: Ring = (points[turns] + (left, top)).tolist()
    return corners


def filled(regions: list[dict[str, list[Any]]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Regions filled by the even-odd rule: right of each upright edge everything is turned over."""
    mask = np.zeros(shape, bool)
    for region in regions:
        for ring in (region["exterior"], *region["holes"]):
            for (x, y), (to_x, to_y) in zip(ring, ring[1:] + ring[:1], strict=True):
                assert (x == to_x) != (y == to_y)
                if x == to_x:
                    mask[min(y, to_y) : max(y, to_y), x:] ^= True
    return mask


def area(ring: list[list[int]]) -> float:
    x, y = np.array(ring, float).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def listed(labels: Labels, classes: int) -> list[list[dict[str, Any]]]:
    """What an answer says of the regions of each class."""
    return [
        [
            Polygon.model_construct(exterior=one.exterior, holes=one.holes).model_dump(mode="json")
            for one in regions
        ]
        for regions in polygons(labels, classes)
    ]


def blobs(seed: int, height: int, width: int, classes: int) -> Labels:
    """A picture of smooth regions, as a model makes them, every class all over the picture."""
    rng = np.random.default_rng(seed)
    best, labels = np.full((height, width), -1, np.float32), np.zeros((height, width), np.uint16)
    for label in range(classes + 1):
        rough = rng.random((max(2, height // 64), max(2, width // 64))).astype(np.float32)
        score = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        more = score > best
        labels[more], best[more] = label, score[more]
    return labels


@settings(max_examples=400, deadline=None, derandomize=True)
@given(label_maps)
@example(np.array([[1, 0], [0, 1]], np.uint16))
@example(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.uint16))
@example(np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1]], np.uint16))
@example(np.array([[1, 2], [2, 1]], np.uint16))
def test_rings_are_those_of_opencv_and_give_the_masks_back(labels: Labels) -> None:
    found = listed(labels, CLASSES)
    assert found == [traced(labels, label) for label in range(1, CLASSES + 1)]
    for label, regions in enumerate(found, 1):
        mask = labels == label
        assert (filled(regions, labels.shape) == mask).all()
        total = sum(area(r["exterior"]) - sum(area(hole) for hole in r["holes"]) for r in regions)
        assert total == mask.sum()


@pytest.mark.parametrize("seed", range(5))
def test_rings_of_larger_pictures_over_several_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CORNER_BLOCK", 1000)
    smooth = blobs(seed, 300 + seed, 417 - seed, 12)
    noisy = np.where(np.random.default_rng(seed).random(smooth.shape) < 0.03, 5, smooth).astype(np.uint16)
    for labels in (smooth, noisy):
        assert listed(labels, 12) == [traced(labels, label) for label in range(1, 13)]


def test_a_hole_and_an_island_in_it() -> None:
    labels = np.ones((7, 7), np.uint16)
    labels[1:6, 1:6] = 0
    labels[3, 3] = 1
    island, frame = listed(labels, 1)[0]
    assert sorted(frame["exterior"]) == [[0, 0], [0, 7], [7, 0], [7, 7]]
    assert [sorted(hole) for hole in frame["holes"]] == [[[1, 1], [1, 6], [6, 1], [6, 6]]]
    assert sorted(island["exterior"]) == [[3, 3], [3, 4], [4, 3], [4, 4]]
    assert island["holes"] == []


def test_a_class_that_is_absent_and_a_picture_of_none() -> None:
    assert polygons(np.full((2, 2), 2, np.uint16), 3)[::2] == [[], []]
    assert polygons(np.zeros((1, 1), np.uint16), 2) == [[], []]


def test_going_on_in_vain_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CORNER_BLOCK", 1)
    asked: list[bool] = []

    def check() -> None:
        asked.append(True)
        if len(asked) == 5:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        polygons(np.ones((9, 9), np.uint16), 1, check)
    assert len(asked) == 5


def test_many_classes_take_one_pass() -> None:
    """Class by class it took 50 times as long here, and 150 times with 12 megapixels and 150 classes."""
    labels = blobs(0, 1200, 1600, 100)
    steps: list[None] = []
    regions = polygons(labels, 100, lambda: steps.append(None))
    rings = sum(1 + len(region.holes) for mine in regions for region in mine)
    passes = -(-1201 // (CORNER_BLOCK // 1601))  # blocks of corners of the whole picture
    assert len(steps) == passes + 2 * rings  # the walk around each ring, and the place of each


def test_outlines_of_many_classes_take_a_few_times_as_long_as_their_run_lengths() -> None:
    """Of the thread's own time. Class by class it was 48 times as long, with 150 classes."""
    labels = blobs(0, 600, 800, 100)
    took: dict[str, list[float]] = {"polygons": [], "rle": []}
    for _ in range(5):
        began = time.thread_time()
        polygons(labels, 100)
        outlined = time.thread_time()
        RunLengths(labels, 100, texts=True).rles()
        took["polygons"].append(outlined - began)
        took["rle"].append(time.thread_time() - outlined)
    assert median(took["polygons"]) < 15 * median(took["rle"]), took


def test_every_ring_asks_whether_to_go_on() -> None:
    labels = np.indices((20, 20)).sum(0).astype(np.uint16) % 2  # 200 lone pixels, which touch at corners
    labels = np.kron(labels, np.array([[1, 0], [0, 0]], np.uint16))  # and these do not
    calls: list[None] = []
    (regions,) = polygons(labels, 1, lambda: calls.append(None))
    assert len(regions) == 200
    assert len(calls) == 1 + 2 * 200  # a block, the walk around each ring, and the place of each

    def last_is_too_late() -> None:
        calls.pop()
        if not calls:
            raise DeadlineExceededError("late")

    with pytest.raises(DeadlineExceededError):
        polygons(labels, 1, last_is_too_late)
