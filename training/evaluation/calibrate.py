"""The confidence below which a pixel is better called "other", and how sure a model is where it is at home.

Every picture is asked for some of the data's classes only; pixels of the others are truly "other" then. How
many are asked for, from one to all, and which, is drawn for each picture from the seed. Of all thresholds
the one with the best F1 is taken: a pixel is right if its class was asked for and is what it gets. Counts
are kept by class and level of confidence, so memory does not grow with pictures or pixels.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.confidence.card import MOST_NAME, Card, Fact, Quantiles
from model.confidence.domain import OwnWords
from model.network.ebseg import EBSeg
from model.segmenter import Segmenter
from model.storage.files import Progress, silent
from model.vocabulary.classes import Vocabulary
from training.data.layout import IGNORED, SegmentationFolder
from training.errors import NothingToCompareError
from training.evaluation.confusion_counts import Options, evaluating, refuse_non_finite

STEP = "calibrating"
THRESHOLDS = 1024  # thresholds that are tried: k / 1024
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # quantiles that a card holds
DIGITS = 4  # of what a card holds; far below what another draw of classes changes


@dataclass(frozen=True, slots=True)
class ConfidenceCounts:
    """Counted pixels of K classes by level of confidence.

    Attributes:
        right: pixels that got the class that they are of, int64 [K, THRESHOLDS + 1].
        given: all that got the class, "other" ones included, int64 [K, THRESHOLDS + 1].
        truth: pixels of each class in pictures that were asked for it, int64 [K].
        other: pixels that no asked class is right for, int64 [THRESHOLDS + 1].
    """

    right: NDArray[np.int64]
    given: NDArray[np.int64]
    truth: NDArray[np.int64]
    other: NDArray[np.int64]

    @classmethod
    def of(cls, classes: int) -> "ConfidenceCounts":
        """Nothing counted yet."""
        shape = (classes, THRESHOLDS + 1)
        return cls(
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(classes, np.int64),
            np.zeros(THRESHOLDS + 1, np.int64),
        )

    def add(
        self,
        truth: NDArray[np.signedinteger[Any]],
        got: NDArray[np.int64],
        confidence: NDArray[np.float32],
        asked: set[int],
    ) -> None:
        """Counts a picture.

        Args:
            truth: classes [H, W]; -1 where a pixel does not count.
            got: the winning class of each pixel, one of those asked for.
            confidence: of it, 0..1.
            asked: the classes that were asked for.
        """
        counted = truth != IGNORED
        wanted, found = truth[counted], got[counted]
        # a pixel of exactly k / THRESHOLDS is kept by that threshold, as by `Segmenter.label_map`
        level = (
            np.floor(confidence[counted].astype(np.float64) * THRESHOLDS).astype(np.int64).clip(0, THRESHOLDS)
        )
        classes = len(self.truth)
        asked_for = np.isin(wanted, list(asked))
        place = found * (THRESHOLDS + 1) + level
        size = classes * (THRESHOLDS + 1)
        self.given[:] += np.bincount(place, minlength=size).reshape(self.given.shape)
        self.right[:] += np.bincount(place[wanted == found], minlength=size).reshape(self.right.shape)
        self.truth[:] += np.bincount(wanted[asked_for], minlength=classes)
        self.other[:] += np.bincount(level[~asked_for], minlength=THRESHOLDS + 1)

    def f1_named(self) -> NDArray[np.float64]:
        """F1 of giving a pixel its class, by threshold, [THRESHOLDS + 1]."""
        return _f1(_from(self.right).sum(0), _from(self.given).sum(0), self.truth.sum())

    def f1_other(self) -> NDArray[np.float64]:
        """F1 of calling a pixel other, by threshold, [THRESHOLDS + 1]."""
        found = self.other.sum() - _from(self.other)
        called = self.given.sum() - _from(self.given).sum(0)
        return _f1(found, called, self.other.sum())

    def miou_named(self) -> NDArray[np.float64]:
        """Mean IoU over the classes that were asked for where they are, percent, by threshold."""
        right = _from(self.right)
        union = self.truth[:, None] + _from(self.given) - right
        means: NDArray[np.float64] = 100 * (right / np.maximum(union, 1))[self.truth > 0].mean(0)
        return means

    def other_found(self) -> NDArray[np.float64]:
        """Share of the "other" pixels that are called so, by threshold."""
        return 1 - _from(self.other) / max(1, int(self.other.sum()))


def _from(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts at each level and above, along the last axis."""
    return np.flip(np.cumsum(np.flip(counts, -1), -1), -1)


def _f1(right: NDArray[np.int64], given: NDArray[np.int64], truth: np.int64) -> NDArray[np.float64]:
    values: NDArray[np.float64] = 2 * right / np.maximum(given + truth, 1)
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was measured.

    Attributes:
        threshold: of the best F1.
        note: how it was measured, a sentence.
        facts: the figures, for a card.
        confidence: quantiles over the pictures, see `OwnWords.confidence`.
    """

    threshold: float
    note: str
    facts: dict[str, Fact] = field(default_factory=dict)
    confidence: Quantiles = ()

    def into(self, card: Card) -> Card:
        """The card with these figures."""
        return dataclasses.replace(
            card,
            threshold=self.threshold,
            threshold_note=self.note,
            calibration=self.facts,
            confidence=self.confidence,
        )


def calibrate(
    ebseg: EBSeg,
    folder: SegmentationFolder,
    card: Card,
    *,
    seed: int = 0,
    options: Options | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Measures a model on pictures that it was not trained on.

    Args:
        ebseg: on any device; its mode is left as it was.
        folder: a split with truth.
        card: says which words are the model's own.
        seed: of which classes each picture is asked for.
        options: sizes and the number of pictures.
        progress: called with `STEP`, pictures done and pictures in all.

    Raises:
        TrainingError: fewer than two classes, so that none can be left out; nothing that counts; or the
            model's output is not finite.
        DatasetError: a file of the folder is wrong.
    """
    options = options or Options()
    names = [item.name for item in folder.classes]
    if len(names) < 2:
        raise NothingToCompareError(
            f"{folder.root} has one class; a threshold needs another one to leave out"
        )
    segmenter = Segmenter(ebseg, short_side=options.short_side, long_side=options.long_side)
    tally, sure = ConfidenceCounts.of(len(names)), []
    count = min(options.limit or len(folder), len(folder))
    with evaluating(ebseg):
        own = OwnWords(segmenter, card)
        text = segmenter.encode_text(Vocabulary.of(names))
        for index in range(count):
            sample = folder[index]
            predictions = segmenter.predict([segmenter.prepare(sample.picture)])
            refuse_non_finite(predictions, sample.name)
            asked = drawn(len(names), seed, index)
            found = segmenter.label_map(
                predictions,
                Vocabulary.of([names[one] for one in asked]),
                output_size=(sample.labels.shape[0], sample.labels.shape[1]),
                text=text[asked],
            )
            got = np.array(asked)[found.labels.astype(np.int64) - 1]  # without a threshold there is no 0
            tally.add(sample.labels, got, found.confidence, set(asked))
            sure.append(own.confidence(predictions))
            progress(STEP, index + 1, count)
    return _chosen(tally, sure, folder, seed)


def drawn(classes: int, seed: int, index: int) -> list[int]:
    """The classes that picture `index` is asked for: one to all of them, ascending."""
    rng = np.random.default_rng([seed, index])
    number = int(rng.integers(1, classes + 1))
    return sorted(int(one) for one in rng.permutation(classes)[:number])


def _chosen(tally: ConfidenceCounts, sure: list[float], folder: SegmentationFolder, seed: int) -> Calibration:
    if not tally.truth.sum() or not tally.other.sum():
        raise NothingToCompareError(
            f"{len(sure)} images of {folder.root} leave nothing to compare: take more, or another --seed"
        )
    named, other, miou, share = tally.f1_named(), tally.f1_other(), tally.miou_named(), tally.other_found()
    best = int(named.argmax())
    data = title(folder)
    facts: dict[str, Fact] = {
        "data": data,
        "split": folder.split,
        "pictures": len(sure),
        "seed": seed,
        "f1_named": _rounded(named[best]),
        "f1_named_without": _rounded(named[0]),
        "f1_other": _rounded(other[best]),
        "miou_named": _rounded(miou[best]),
        "miou_named_without": _rounded(miou[0]),
        "other_found": _rounded(share[best]),
        "other_share": _rounded(tally.other.sum() / (tally.other.sum() + tally.truth.sum())),
    }
    quantiles = tuple((one, _rounded(np.quantile(sure, one))) for one in SHARES)
    note = f"the best F1 of named classes against other, on {len(sure)} images of {data}, {folder.split}"
    return Calibration(threshold=best / THRESHOLDS, note=note, facts=facts, confidence=quantiles)


def title(folder: SegmentationFolder) -> str:
    """What a data set is called, short enough for a card: its title, or its folder's name."""
    named = folder.title or folder.root.resolve().name
    return "".join(one for one in named if one.isprintable()).strip()[:MOST_NAME] or "a data set"


def _rounded(value: float | np.floating) -> float:
    return round(float(value), DIGITS)
