"""Label maps, made tile by tile, against scores of all classes and pixels at once."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import (
    Balance,
    EBSeg,
    LabelMap,
    MaskPredictions,
    ModelError,
    PictureError,
    Segmenter,
    Vocabulary,
)
from tests.model import plain
from tests.model.plain_encoders import bilinear

TOLERANCE = 1e-5  # of scores, relative to the largest
UNDECIDED = 1e-4  # two best scores nearer than this, relative to the largest, may change places


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predictions(
    ebseg: EBSeg, image_size: tuple[int, int], pictures: int = 1, queries: int = 7, seed: int = 0
) -> MaskPredictions:
    """Made up: masks of a few blots each, embeddings of random direction."""
    rows, columns = (-(-side // 32) * 8 for side in image_size)
    coarse = 6 * noise(pictures, queries, 3, 4, seed=seed)
    width = ebseg.config.clip.joint_width

    def embeddings(length: float, more: int) -> Tensor:
        return length * torch.nn.functional.normalize(
            noise(pictures, queries, width, seed=seed + more), dim=-1
        )

    return MaskPredictions(
        mask_logits=bilinear(coarse, (rows, columns)) + 0.3 * noise(pictures, queries, rows, columns, seed=9),
        supervised=embeddings(4.0, 1),
        mask_attention=embeddings(1.0, 2),
        frozen=embeddings(0.5, 3),
        image_size=image_size,
    )


def vocabulary(classes: int, ebseg: EBSeg, first: int = 0, alike: bool = True) -> tuple[Vocabulary, Tensor]:
    """Names and made-up text embeddings; where they are alike, every class gets a share."""
    names = [f"class {first + i}" for i in range(classes)]
    rows = alike + (0.3 if alike else 1.0) * noise(classes, ebseg.config.clip.joint_width, seed=100 + first)
    own = Vocabulary.of(names, trained=[i % 2 == 0 for i in range(classes)])
    return own, torch.nn.functional.normalize(rows, dim=-1)


def check(found: LabelMap, scores: Tensor) -> None:
    """Labels and confidence of a label map against plain scores [K, H, W]."""
    assert found.labels.dtype == np.uint16
    assert found.confidence.dtype == np.float32
    assert found.labels.shape == found.confidence.shape == scores.shape[1:]
    best, winner = scores.max(0)
    certain = best / scores.sum(0).clamp(min=1)
    assert np.abs(found.confidence - certain.numpy()).max() <= TOLERANCE
    decided = np.ones(found.labels.shape, bool)
    if len(scores) > 1:
        first, second = scores.topk(2, 0).values
        decided = (first - second > UNDECIDED * best.max()).numpy()
        assert decided.mean() > 0.98
    assert np.array_equal(found.labels[decided], winner.numpy()[decided] + 1)


@pytest.mark.parametrize("classes", [1, 2, 30])
@pytest.mark.parametrize("image_size", [(64, 96), (50, 70), (33, 32)])
@pytest.mark.parametrize("scale", ["same", "double", "half", "odd"], ids=lambda scale: f"output-{scale}")
def test_equals_plain_scores(classes: int, image_size: tuple[int, int], scale: str, tiny: EBSeg) -> None:
    height, width = image_size
    output_size = {
        "same": image_size,
        "double": (2 * height, 2 * width),
        "half": (height // 2, width // 2),
        "odd": (height * 7 // 5, width * 3 // 7),
    }[scale]
    own, (names, text) = predictions(tiny, image_size), vocabulary(classes, tiny)
    (probabilities,) = tiny.classify(own, names, text)
    wanted = plain.score_maps(own.mask_logits[0], probabilities, image_size, output_size)
    segmenter = Segmenter(tiny)
    scores = segmenter.score_maps(own, names, output_size=output_size, text=text)
    assert scores.dtype == torch.float32
    assert scores.shape == (classes, *output_size)
    assert (scores - wanted).abs().max() <= TOLERANCE * wanted.max()
    check(segmenter.label_map(own, names, output_size=output_size, text=text), wanted)


@pytest.mark.parametrize(
    ("classes", "output_size"),
    [
        (300, (90, 1100)),
        (300, (700, 20)),
        (3, (40, 3000)),
        (3, (1, 1)),
        (3, (1, 500)),
        (3, (500, 1)),
        (1024, (9, 9)),
    ],
)
@pytest.mark.parametrize("alike", [True, False])
def test_many_tiles(classes: int, output_size: tuple[int, int], alike: bool, tiny: EBSeg) -> None:
    """More classes or pixels than one tile holds, in both directions, and next to none."""
    own, (names, text) = predictions(tiny, (96, 128)), vocabulary(classes, tiny, alike=alike)
    (probabilities,) = tiny.classify(own, names, text)
    wanted = plain.score_maps(own.mask_logits[0], probabilities, (96, 128), output_size)
    segmenter = Segmenter(tiny)
    scores = segmenter.score_maps(own, names, output_size=output_size, text=text)
    assert (scores - wanted).abs().max() <= TOLERANCE * wanted.max()
    check(segmenter.label_map(own, names, output_size=output_size, text=text), wanted)


def test_classes_that_win_in_different_places(tiny: EBSeg) -> None:
    """Each of eight masks has one class of its own; whoever wins anywhere must not be left out."""
    own, (names, text) = predictions(tiny, (128, 128), queries=8), vocabulary(60, tiny, alike=False)
    for embeddings in (own.supervised, own.mask_attention, own.frozen):
        embeddings.copy_(text[7 * torch.arange(8)])
    own.mask_logits.fill_(-9)
    for i in range(8):
        own.mask_logits[:, i, 4 * i : 4 * i + 4] = 9
    (probabilities,) = tiny.classify(own, names, text)
    wanted = plain.score_maps(own.mask_logits[0], probabilities, (128, 128), (200, 30))
    found = Segmenter(tiny).label_map(own, names, output_size=(200, 30), text=text)
    check(found, wanted)
    assert set(np.unique(found.labels)) == {7 * i + 1 for i in range(8)}


class Largest(TorchDispatchMode):
    """Watches every operation, and keeps the size of the largest result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(options or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return out


def test_no_result_holds_all_classes_and_pixels(tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (128, 128), queries=3), vocabulary(847, tiny)
    with Largest() as largest:
        Segmenter(tiny).label_map(own, names, output_size=(120, 1000), text=text)
    assert 120 * 1000 < largest.numel < 847 * 120 * 1000 / 10


def test_threshold(tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (64, 64)), vocabulary(3, tiny)
    segmenter = Segmenter(tiny)

    def label_map(threshold: float) -> LabelMap:
        return segmenter.label_map(own, names, output_size=(80, 90), text=text, threshold=threshold)

    plainly = label_map(0.0)
    assert plainly.labels.min() >= 1
    threshold = float(np.median(plainly.confidence))
    cut = label_map(threshold)
    assert np.array_equal(cut.confidence, plainly.confidence)
    assert np.array_equal(cut.labels, np.where(plainly.confidence >= threshold, plainly.labels, 0))
    assert 0.4 < (cut.labels == 0).mean() < 0.6
    assert (label_map(1.1).labels == 0).all()


def test_confidence_is_low_where_nothing_is_seen(tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (64, 64)), vocabulary(3, tiny)
    own.mask_logits.fill_(-8.0)
    found = Segmenter(tiny).label_map(own, names, output_size=(64, 64), text=text)
    assert found.confidence.max() < 0.01
    assert found.labels.min() >= 1


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_confidence_never_passes_one(classes: int, tiny: EBSeg) -> None:
    """Where many masks overlap, scores add up to more than one, and the confidence is a share."""
    for seed in range(10):
        own = predictions(tiny, (64, 64), queries=40, seed=seed)
        own.mask_logits.add_(6)
        names, text = vocabulary(classes, tiny, first=seed)
        scores = Segmenter(tiny).score_maps(own, names, output_size=(64, 64), text=text)
        found = Segmenter(tiny).label_map(own, names, output_size=(64, 64), text=text)
        assert scores.sum(0).max() > 1
        assert found.confidence.min() >= 0
        assert found.confidence.max() <= 1
        assert found.confidence.max() >= 1 / classes


def test_each_picture_of_a_batch_has_its_own_vocabulary(tiny: EBSeg) -> None:
    own = predictions(tiny, (64, 96), pictures=3)
    listed = [vocabulary(classes, tiny, first=50 * i) for i, classes in enumerate([2, 9, 5])]
    each = tiny.classify(own, [names for names, _ in listed], [text for _, text in listed])
    segmenter = Segmenter(tiny)
    for i, (names, text) in enumerate(listed):
        assert each[i].shape == (7, len(names))
        assert torch.equal(each[i], tiny.classify(own[i], names, text)[0])
        wanted = plain.score_maps(own.mask_logits[i], each[i], (64, 96), (70, 80))
        check(segmenter.label_map(own, names, output_size=(70, 80), index=i, text=text), wanted)
        scores = segmenter.score_maps(own, names, output_size=(70, 80), index=i, text=text)
        assert (scores - wanted).abs().max() <= TOLERANCE * wanted.max()


def test_one_vocabulary_for_the_whole_batch(tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (64, 96), pictures=2), vocabulary(4, tiny)
    shared = tiny.classify(own, names, text)
    for found, wanted in zip(shared, tiny.classify(own, [names, names], [text, text]), strict=True):
        assert torch.equal(found, wanted)
    assert not torch.equal(shared[0], shared[1])


def test_text_is_computed_when_left_out(tiny: EBSeg) -> None:
    own, names = predictions(tiny, (32, 32), pictures=2), Vocabulary.of(["cat", "dog"])
    others = Vocabulary.of(["sky", "tree", "road"], templates="plain")
    found = tiny.classify(own, [names, others])
    text = tiny.encode_text(names.names), tiny.encode_text(others.names, others.templates)
    for a, b in zip(found, tiny.classify(own, [names, others], text), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_vocabularies_as_pictures(count: int, tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (32, 32), pictures=2), vocabulary(2, tiny)
    with pytest.raises((ValueError, ModelError)):
        tiny.classify(own, [names] * count, [text] * count)
    with pytest.raises((ValueError, ModelError)):
        tiny.classify(own, [names] * 2, [text] * count)


def test_balance_of_a_request(tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (32, 32)), vocabulary(3, tiny)
    balance = Balance.arithmetic()
    segmenter = Segmenter(tiny)
    default = segmenter.score_maps(own, names, output_size=(32, 32), text=text)
    changed = segmenter.score_maps(own, names, output_size=(32, 32), text=text, balance=balance)
    assert (default - changed).abs().max() > 1e-3
    (probabilities,) = tiny.classify(own, names, text, balance)
    wanted = plain.score_maps(own.mask_logits[0], probabilities, (32, 32), (32, 32))
    check(segmenter.label_map(own, names, output_size=(32, 32), text=text, balance=balance), wanted)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, 5)])
def test_an_output_without_pixels(size: tuple[int, int], tiny: EBSeg) -> None:
    own, (names, text) = predictions(tiny, (32, 32)), vocabulary(2, tiny)
    for make in (Segmenter(tiny).label_map, Segmenter(tiny).score_maps):
        with pytest.raises(PictureError, match="at least one pixel"):
            make(own, names, output_size=size, text=text)
