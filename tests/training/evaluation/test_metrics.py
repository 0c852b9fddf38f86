"""Confusions and their means, by hand and against torchmetrics."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from training.data.layout import IGNORED
from training.errors import TrainingError
from training.evaluation.metrics import Confusion

TRUTH = np.array([[0, 0, 1], [1, 3, IGNORED]])
FOUND = np.array([[0, 1, 1], [1, 2, 0]])


def counted(classes: int, truth: NDArray[np.int64], found: NDArray[np.int64]) -> Confusion:
    confusion = Confusion(classes)
    confusion.add(truth, found)
    return confusion


def random_maps(seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ten classes: 3 is neither true nor found, 5 is never found, 7 is never true; a tenth is ignored."""
    random = np.random.default_rng(seed)
    truth = random.choice([0, 1, 2, 4, 5, 6, 8, 9, IGNORED], (40, 30))
    found = np.where(random.random((40, 30)) < 0.6, truth, random.choice([0, 1, 2, 4, 6, 7, 8, 9], (40, 30)))
    return truth, np.where((found == 5) | (found == IGNORED), 7, found)


def test_by_hand() -> None:
    """Class 0: 1 of 2; class 1: 2 of 3; class 2 only found, so not scored; class 3 true, never found."""
    confusion = counted(4, TRUTH, FOUND)
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert confusion.pixels.tolist() == [2, 2, 0, 1]
    assert confusion.iou().tolist() == pytest.approx([1 / 2, 2 / 3, np.nan, 0], nan_ok=True)
    assert confusion.mean_iou() == pytest.approx(100 * (1 / 2 + 2 / 3 + 0) / 3)
    assert confusion.pixel_accuracy() == pytest.approx(100 * 3 / 5)
    assert confusion.mean_accuracy() == pytest.approx(100 * (1 / 2 + 1 + 0) / 3)
    assert confusion.frequency_weighted_iou() == pytest.approx(100 * (2 * 1 / 2 + 2 * 2 / 3 + 0) / 5)
    assert confusion.most_confused(9) == [(0, 1, 1), (3, 2, 1)]
    assert confusion.most_confused(1) == [(0, 1, 1)]


def test_means_of_some_classes_keep_all_others_as_rivals() -> None:
    confusion = counted(4, TRUTH, FOUND)
    assert confusion.mean_iou([True, False, True, False]) == pytest.approx(50)
    assert confusion.mean_iou(np.array([False, True, False, True])) == pytest.approx(100 / 3)


def test_a_mean_of_nothing_is_none() -> None:
    confusion = counted(4, TRUTH, FOUND)
    assert confusion.mean_iou([False, False, True, False]) is None
    assert confusion.mean_iou([False] * 4) is None
    empty = counted(2, np.full((3, 3), IGNORED), np.zeros((3, 3), np.int64))
    assert empty.mean_iou() is None
    assert empty.pixel_accuracy() is empty.mean_accuracy() is empty.frequency_weighted_iou() is None
    assert empty.most_confused(3) == []
    assert np.isnan(empty.iou()).all()


@pytest.mark.parametrize("seed", range(5))
def test_equals_torchmetrics(seed: int) -> None:
    """Several pictures, absent classes, ignored pixels. Absent from the truth is not averaged here."""
    confusion = Confusion(10)
    jaccard = MulticlassJaccardIndex(10, average="none", ignore_index=IGNORED)
    accuracy = MulticlassAccuracy(10, average="micro", ignore_index=IGNORED)
    recall = MulticlassAccuracy(10, average="none", ignore_index=IGNORED)
    for picture in range(3):
        truth, found = random_maps(10 * seed + picture)
        confusion.add(truth, found)
        jaccard.update(torch.from_numpy(found), torch.from_numpy(truth))
        accuracy.update(torch.from_numpy(found), torch.from_numpy(truth))
        recall.update(torch.from_numpy(found), torch.from_numpy(truth))
    each = jaccard.compute().double()
    present = [0, 1, 2, 4, 5, 6, 8, 9]
    assert confusion.present.nonzero()[0].tolist() == present
    assert confusion.iou()[present].tolist() == pytest.approx(each[present].tolist(), abs=1e-6)
    assert confusion.mean_iou() == pytest.approx(100 * each[present].mean().item(), abs=1e-4)
    assert confusion.pixel_accuracy() == pytest.approx(100 * accuracy.compute().item(), abs=1e-4)
    assert confusion.mean_accuracy() == pytest.approx(100 * recall.compute()[present].mean().item(), abs=1e-4)


def test_is_torchmetrics_own_mean_where_all_classes_are_true() -> None:
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 4, (2, 30, 30))
    macro = MulticlassJaccardIndex(4, average="macro")
    wanted = macro(torch.from_numpy(found), torch.from_numpy(truth)).item()
    assert counted(4, truth, found).mean_iou() == pytest.approx(100 * wanted, abs=1e-4)


def test_parts_add_up_to_the_whole() -> None:
    whole, parts = Confusion(10), [Confusion(10) for _ in range(3)]
    for picture in range(7):
        truth, found = random_maps(picture)
        whole.add(truth, found)
        parts[picture % 3].add(truth, found)
    merged = Confusion(10)
    for part in parts:
        merged.merge(Confusion.of(part.counts))
    assert (merged.counts == whole.counts).all()
    assert merged.counts.dtype == np.int64


def test_a_copy_of_counts_stands_alone() -> None:
    confusion = counted(4, TRUTH, FOUND)
    copy = Confusion.of(confusion.counts)
    copy.merge(confusion)
    assert confusion.counts.sum() == 5


def test_small_types_do_not_wrap() -> None:
    """200 classes as uint8: the number of a pair of classes needs more than eight bits."""
    truth = np.full((2, 2), 199, np.uint8)
    confusion = Confusion(200)
    confusion.add(truth, truth)
    assert confusion.counts[199, 199] == 4


def test_what_cannot_be_counted() -> None:
    confusion = Confusion(4)
    with pytest.raises(TrainingError, match=r"shape \[2, 3\], the prediction \[3\]"):
        confusion.add(TRUTH, FOUND[0])
    with pytest.raises(TrainingError, match="the truth holds labels 0 to 4, classes go from 0 to 3"):
        confusion.add(np.array([0, 4]), np.array([0, 0]))
    with pytest.raises(TrainingError, match="the prediction holds labels -1 to 0"):
        confusion.add(np.array([0, 0]), np.array([0, -1]))
    with pytest.raises(TrainingError, match="3 classes cannot be merged with 4"):
        confusion.merge(Confusion(3))
    with pytest.raises(TrainingError, match="at least one class"):
        Confusion(0)
    assert confusion.counts.sum() == 0
