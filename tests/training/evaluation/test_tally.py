"""Boundary IoU against erosion class by class, sums over parts, and the worst pictures."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.tally import BAND, Tally, band_counts, near_outline

K = 4


def maps(seed: int, height: int = 60, width: int = 90) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Truth and prediction of large regions."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, K, (2, 6, 9))
    truth, found = (np.kron(one, np.ones((height // 6, width // 9), np.int64)) for one in coarse)
    found[:, : width // 2] = np.roll(truth, 3, 0)[:, : width // 2]
    return truth, found


def by_erosion(labels: NDArray[np.int64], k: int, distance: int) -> NDArray[np.bool_]:
    """The band of one class as Boundary IoU's authors describe it: the mask less its erosion."""
    mask = np.pad((labels == k).astype(np.uint8), 1)
    eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)
    return (mask - eroded)[1:-1, 1:-1] > 0


def test_bands_are_those_of_erosion() -> None:
    truth, found = maps(1)
    distance = round(BAND * float(np.hypot(*truth.shape)))
    assert distance == 2
    shared, either = band_counts(truth, found, K)
    for k in range(K):
        wanted, got = by_erosion(truth, k, distance), by_erosion(found, k, distance)
        assert shared[k] == (wanted & got).sum() > 0
        assert either[k] == (wanted | got).sum()


def test_what_does_not_count_has_no_outline() -> None:
    labels = np.zeros((40, 40), np.int16)
    labels[:, 20:] = -1
    near = near_outline(labels, 3)
    assert near[:3, :20].all()
    assert near[:, :3].all()
    assert not near[3:-3, 3:20].any()
    assert not near[:, 20:].any()


def test_a_perfect_prediction_and_a_shifted_one() -> None:
    truth, _ = maps(2)
    perfect, shifted = Tally(K, 1), Tally(K, 1)
    perfect.add(0, truth, truth)
    shifted.add(0, truth, np.roll(truth, 2, 0))
    assert perfect.mean_boundary_iou() == 100
    miou, outline = shifted.confusion.mean_iou(), shifted.mean_boundary_iou()
    assert miou is not None
    assert outline is not None
    assert outline < miou - 20  # outlines tell more than areas
    assert Tally(K, 1).mean_boundary_iou() is None


def test_parts_add_up_and_the_worst_are_found() -> None:
    whole, parts = Tally(K, 5), [Tally(K, 5) for _ in range(2)]
    for index in range(4):
        truth, found = maps(index)
        if index == 2:
            found = truth
        whole.add(index, truth, found)
        parts[index % 2].add(index, truth, found)
    whole.add(4, np.full((20, 20), -1), np.zeros((20, 20), np.int64))  # nothing to score
    sums = Tally.of(parts[0].vector() + parts[1].vector(), K)
    assert np.array_equal(sums.vector(), whole.vector())
    worst = whole.worst(9)
    assert sorted(index for index, _ in worst) == [0, 1, 2, 3]
    assert worst[-1] == (2, 100.0)
    assert [miou for _, miou in worst] == sorted(miou for _, miou in worst)
    one = Tally(K, 1)
    one.add(0, *maps(worst[0][0]))
    assert worst[0][1] == pytest.approx(one.confusion.mean_iou(), abs=1e-4)
    assert len(whole.worst(2)) == 2
