"""A picture's answer does not depend on who shares the batch."""

import pytest
import torch

from model import EBSeg, MaskPredictions, PictureError, Segmenter, Vocabulary
from tests.golden.weights import picture

TOLERANCE = 1e-5  # of scores, relative to the largest
NAMES = ("mask_logits", "supervised", "mask_attention", "frozen")
VOCABULARIES = [
    Vocabulary.of(["sky", "tree", "road"]),
    Vocabulary.of(["cat"]),
    Vocabulary.of([f"thing {i}" for i in range(40)], templates="plain"),
    Vocabulary.of(["water", "sand", "boat", "person"], trained=[True, False, True, False]),
    Vocabulary.of(["grass", "fence"], templates=["the {}"]),
]


def views(size: tuple[int, int], count: int) -> list[torch.Tensor]:
    return [picture(*size, 0.25 + 0.5 * i) for i in range(count)]


@pytest.mark.parametrize("model", ["tiny", "uneven"])
@pytest.mark.parametrize(
    ("size", "count"), [((64, 96), 2), ((128, 128), 3), ((70, 93), 4), ((33, 161), 5), ((1, 1), 2)]
)
def test_batched_equals_alone(
    model: str, size: tuple[int, int], count: int, request: pytest.FixtureRequest
) -> None:
    segmenter = Segmenter(request.getfixturevalue(model), short_side=None)
    pictures = views(size, count)
    together = segmenter.predict(pictures)
    assert len(together) == count
    for i, (view, vocabulary) in enumerate(zip(pictures, VOCABULARIES, strict=False)):
        alone = segmenter.predict([view])
        scores = segmenter.score_maps(together, vocabulary, output_size=(50, 60), index=i)
        wanted = segmenter.score_maps(alone, vocabulary, output_size=(50, 60))
        assert (scores - wanted).abs().max() <= TOLERANCE * wanted.max()
        found = segmenter.label_map(together, vocabulary, output_size=(50, 60), index=i)
        expected = segmenter.label_map(alone, vocabulary, output_size=(50, 60))
        assert (found.labels == expected.labels).all()
        assert abs(found.confidence - expected.confidence).max() <= TOLERANCE


def test_same_bits_on_a_cpu(uneven: EBSeg) -> None:
    """Rounding that depends on the batch could tip a pixel over a mask's threshold."""
    pictures = torch.stack(views((70, 93), 5))
    together = uneven.predict(pictures)
    backwards = uneven.predict(pictures.flip(0))
    for name in NAMES:
        found = getattr(together, name)
        assert torch.equal(found, torch.cat([getattr(uneven.predict(view[None]), name) for view in pictures]))
        assert torch.equal(found, getattr(backwards, name).flip(0))
        assert (found[0] - found[1]).abs().max() > 1e-3 * found.abs().max()


def test_training_outputs_of_a_batch(uneven: EBSeg) -> None:
    pictures = torch.stack(views((64, 64), 2))
    with torch.no_grad():
        together = uneven.stages(pictures)
        alone = [uneven.stages(view[None]) for view in pictures]
    wanted = torch.cat([stages[0].mask_logits for stages in alone])
    assert (together[0].mask_logits - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    for i, stage in enumerate(together):
        for name in NAMES[:3]:
            found, wanted = getattr(stage, name), torch.cat([getattr(stages[i], name) for stages in alone])
            assert (found - wanted).abs().max() <= 1e-2 * wanted.abs().max()  # a pixel may have tipped


def test_a_poor_neighbour(tiny: EBSeg) -> None:
    """Pictures of one colour, without anything to see."""
    usual = picture(64, 64, 0.0)
    batch = torch.stack([torch.zeros_like(usual), usual, torch.full_like(usual, 255)])
    together, alone = tiny.predict(batch), tiny.predict(usual[None])
    for name in NAMES:
        found, wanted = getattr(together, name), getattr(alone, name)
        assert found.isfinite().all()
        assert (found[1:2] - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def test_shapes_must_be_equal(tiny: EBSeg) -> None:
    segmenter = Segmenter(tiny)
    with pytest.raises(PictureError, match="one shape"):
        segmenter.predict([picture(64, 64, 0.0), picture(64, 65, 0.0)])
    with pytest.raises(PictureError, match="one shape"):
        segmenter.predict([])


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 4, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1, 3, 0, 8, dtype=torch.uint8),
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_what_is_no_picture(images: torch.Tensor, tiny: EBSeg) -> None:
    with pytest.raises(PictureError, match=r"uint8 \[B, 3, H, W\]"):
        tiny.predict(images)
    with pytest.raises(PictureError, match=r"uint8 \[B, 3, H, W\]"):
        tiny.stages(images)


def test_one_of_a_batch(tiny: EBSeg) -> None:
    together = tiny.predict(torch.stack(views((64, 64), 3)))
    assert isinstance(together[2], MaskPredictions)
    assert len(together[2]) == 1
    assert torch.equal(together[2].supervised, together.supervised[2:])
    assert together[2].image_size == (64, 64)
