"""Classes of several words, with thresholds of their own, or ignored: EBSeg-tiny on a drawn scene."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model import LabelMap, Segmenter, Vocabulary, VocabularyError
from model.network.predictions import MaskPredictions
from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import MAX_WORDS, ClassName, SynonymMode

VILLAGE = Path(__file__).parents[3] / "samples" / "village.jpg"
NAMES = ["house", "umbrella", "clouds", "sky", "grass"]
HOUSE, UMBRELLA = 1, 2
Seen = tuple[Segmenter, MaskPredictions]


@pytest.fixture(scope="module")
def seen() -> Seen:
    segmenter = Segmenter(load(packaged_checkpoint()).ebseg)
    picture = np.asarray(Image.open(VILLAGE).convert("RGB"))
    return segmenter, segmenter.predict([segmenter.prepare(picture)])


def label_map(
    seen: Seen, *classes: str | ClassName, mode: SynonymMode = "best", least: float = 0
) -> LabelMap:
    segmenter, predictions = seen
    named = Vocabulary.of(list(classes)).classes
    vocabulary = Vocabulary(classes=named, synonym_mode=mode)
    return segmenter.label_map(predictions, vocabulary, output_size=(180, 240), threshold=least)


def share(inside: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return float((inside & of).sum() / of.sum())


@pytest.mark.parametrize("mode", ["best", "mean"])
def test_a_class_is_found_by_its_synonym(seen: Seen, mode: SynonymMode) -> None:
    umbrella = label_map(seen, *NAMES).labels == UMBRELLA
    assert umbrella.mean() > 0.01
    thing = ClassName(name="parasol", prompts=("umbrella", "Umbrella", "parasol"))
    found = label_map(seen, "house", thing, *NAMES[2:], mode=mode).labels == UMBRELLA
    alone = label_map(seen, "house", "parasol", *NAMES[2:]).labels == UMBRELLA
    assert share(found, umbrella) > share(alone, umbrella) + 0.2
    if mode == "best":
        assert share(found, umbrella) > 0.9


def test_the_best_of_two_things_is_both(seen: Seen) -> None:
    apart = label_map(seen, *NAMES).labels
    both = label_map(seen, ClassName(name="house", prompts=("umbrella",)), *NAMES[2:]).labels
    assert share(both == 1, (apart == HOUSE) | (apart == UMBRELLA)) > 0.98
    assert share(both > 1, apart > UMBRELLA) > 0.98


def test_an_ignored_class_competes_and_is_other(seen: Seen) -> None:
    plain = label_map(seen, *NAMES)
    made = label_map(seen, "house", ClassName(name="umbrella", ignored=True), *NAMES[2:])
    assert (made.labels == np.array([0, 1, 0, 2, 3, 4])[plain.labels]).all()
    assert (made.confidence == plain.confidence).all()


def test_a_class_has_its_own_threshold(seen: Seen) -> None:
    plain = label_map(seen, *NAMES)
    middle = float(np.median(plain.confidence[plain.labels == HOUSE]))
    own = ClassName(name="house", threshold=middle)
    lenient = ClassName(name="umbrella", threshold=0.0)
    made = label_map(seen, own, lenient, *NAMES[2:], least=0.7)
    least = np.array([0, middle, 0, 0.7, 0.7, 0.7], np.float32)[plain.labels]
    assert (made.labels == np.where(plain.confidence >= least, plain.labels, 0)).all()
    assert 0 < (made.labels == HOUSE).sum() < (plain.labels == HOUSE).sum()
    assert ((made.labels == UMBRELLA) == (plain.labels == UMBRELLA)).all()


def test_words_labels_and_digest() -> None:
    plain = Vocabulary.of(["tree", "sky"])
    assert (plain.words, plain.word_classes, plain.labels) == (["tree", "sky"], None, [1, 2])
    tree = ClassName(name="tree", prompts=(" bush ", "BUSH", "Tree", "hedge"))
    several = Vocabulary.of([tree, ClassName(name="wall", ignored=True), "sky"])
    assert several.words == ["tree", "bush", "hedge", "wall", "sky"]
    assert several.word_classes == [0, 0, 0, 1, 2]
    assert (several.labels, several.reported) == ([1, 0, 2], [0, 2])
    assert several.digest == Vocabulary.of(several.words).digest != plain.digest
    synonyms_only = Vocabulary.of([ClassName(name="tree", synonyms=("bush",)), "sky"])
    assert synonyms_only.digest == plain.digest  # as the benchmarks have them


@pytest.mark.parametrize(
    ("classes", "mode", "message"),
    [
        ([ClassName(name="a", ignored=True)], "best", "every class is ignored"),
        ([ClassName(name="a", prompts=(" ",))], "best", "class 0 has an empty synonym"),
        ([ClassName(name="a", prompts=("b" * 201,))], "best", "class 0's synonym has 201 characters"),
        ([ClassName(name="a", prompts=("b\nc",))], "best", "control character"),
        ([ClassName(name="a", threshold=1.5)], "best", r"class 0: threshold must be in 0\.\.1, got 1\.5"),
        ([ClassName(name="a", threshold=float("nan"))], "best", "class 0: threshold must be"),
        ([ClassName(name="a")], "worst", 'synonym_mode must be "best" or "mean"'),
        (
            [ClassName(name=f"c{i}", prompts=tuple(f"p{i} {j}" for j in range(41))) for i in range(100)],
            "best",
            f"4200 names and synonyms are too many, at most {MAX_WORDS}",
        ),
    ],
)
def test_wrong_words(classes: list[ClassName], mode: SynonymMode, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(classes=tuple(classes), synonym_mode=mode)
