"""Pictures in, label maps out."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import EBSeg, LabelMap, ModelError, PictureError, Segmenter, Vocabulary
from model.transforms import network_size
from tests.golden.weights import picture

THREE = Vocabulary.of(["sky", "tree", "road"])


def array(height: int, width: int) -> NDArray[np.uint8]:
    """A picture [height, width, 3]."""
    return np.ascontiguousarray(picture(height, width, 0.25).permute(1, 2, 0).numpy())


# --- sizes


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((640, 640), (640, 640)),
        ((480, 640), (640, 853)),
        ((3000, 4000), (640, 853)),
        ((1000, 500), (1280, 640)),
        ((1, 1), (640, 640)),
        # the long side decides from 1 : 4 on
        ((100, 400), (640, 2560)),
        ((100, 401), (638, 2560)),
        ((1000, 8000), (320, 2560)),
        ((8000, 1000), (2560, 320)),
        ((1, 10_000), (1, 2560)),
        # halves are rounded up: 1280.5 and 1281.5
        ((640, 641), (640, 641)),
        ((1280, 2561), (640, 1281)),
        ((1280, 2563), (640, 1282)),
    ],
)
def test_network_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert network_size(size, 640, 2560) == wanted
    assert network_size(size[::-1], 640, 2560) == wanted[::-1]


def test_network_size_without_a_short_side() -> None:
    assert network_size((5, 7), None, 2560) == (5, 7)
    assert network_size((9000, 7), None, 2560) == (9000, 7)


@pytest.mark.parametrize(
    ("given", "short_side", "wanted"),
    [
        ((100, 150), 128, (128, 192)),
        ((500, 400), 128, (160, 128)),
        ((1, 1), 128, (128, 128)),
        ((1, 500), 128, (1, 512)),
        ((500, 1), 128, (512, 1)),
        ((70, 93), None, (70, 93)),
        ((128, 200), 128, (128, 200)),
    ],
)
def test_prepare(
    given: tuple[int, int], short_side: int | None, wanted: tuple[int, int], tiny: EBSeg
) -> None:
    prepared = Segmenter(tiny, short_side=short_side, long_side=512).prepare(array(*given))
    assert prepared.dtype == torch.uint8
    assert prepared.shape == (3, *wanted)
    assert prepared.is_contiguous()


def test_defaults_are_the_configurations(tiny: EBSeg) -> None:
    segmenter = Segmenter(tiny)
    assert (segmenter.short_side, segmenter.long_side) == (192, 768)
    assert segmenter.prepare(array(100, 300)).shape == (3, 192, 576)
    assert segmenter.prepare(array(100, 500)).shape == (3, 154, 768)
    assert Segmenter(tiny, short_side=64).prepare(array(100, 500)).shape == (3, 64, 320)
    assert Segmenter(tiny, long_side=256).prepare(array(100, 500)).shape == (3, 51, 256)


@pytest.mark.parametrize(
    "sides", [{"short_side": 0}, {"short_side": -5}, {"long_side": 0}, {"long_side": -5}]
)
def test_impossible_sides(sides: dict[str, int], tiny: EBSeg) -> None:
    with pytest.raises(ModelError, match="_side"):
        Segmenter(tiny, **sides)


# --- pictures


def test_arrays_and_tensors_are_the_same_picture(tiny: EBSeg) -> None:
    pixels = array(90, 70)
    segmenter = Segmenter(tiny)
    prepared = segmenter.prepare(pixels)
    assert torch.equal(segmenter.prepare(torch.from_numpy(pixels).permute(2, 0, 1)), prepared)
    # views that are not contiguous, upside down, or cannot be written to
    assert torch.equal(segmenter.prepare(np.asfortranarray(pixels)), prepared)
    assert torch.equal(segmenter.prepare(pixels[::-1][::-1]), prepared)
    pixels.setflags(write=False)
    assert torch.equal(segmenter.prepare(pixels), prepared)


def test_colours_keep_their_places(tiny: EBSeg) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :] = (10, 120, 250)
    prepared = Segmenter(tiny).prepare(pixels)
    assert [int(channel.unique()) for channel in prepared] == [10, 120, 250]


def test_prepared_pictures_own_their_memory(tiny: EBSeg) -> None:
    pixels = array(20, 30)
    prepared = Segmenter(tiny, short_side=None).prepare(pixels)
    pixels[:] = 0
    assert prepared.float().mean() > 10
    whole = picture(20, 30, 0.25)
    Segmenter(tiny, short_side=None).prepare(whole).zero_()
    assert whole.float().mean() > 10


def test_shrinking_is_antialiased(tiny: EBSeg) -> None:
    """A fine chequerboard becomes grey, not a pattern."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    prepared = Segmenter(tiny).prepare(np.repeat(board[..., None], 3, 2)).float()
    assert prepared[:, 2:-2, 2:-2].std() < 2
    assert prepared.mean().item() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(3, 8, 8),
        torch.zeros(3, 8, 8, dtype=torch.bfloat16),
        torch.zeros(3, 0, 8, dtype=torch.uint8),
        torch.zeros(8, 8, dtype=torch.uint8),
    ],
    ids=lambda wrong: f"{wrong.dtype}-{list(wrong.shape)}",
)
def test_what_is_no_picture(wrong: Any, tiny: EBSeg) -> None:
    with pytest.raises(PictureError, match="must be"):
        Segmenter(tiny).prepare(wrong)


def test_prepare_in_many_threads(tiny: EBSeg) -> None:
    segmenter, pictures = Segmenter(tiny), [array(40 + i, 50) for i in range(12)]
    wanted = [segmenter.prepare(pixels) for pixels in pictures]
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: segmenter.prepare(pictures[i])}))
        for i in range(len(pictures))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], wanted[i]) for i in range(len(pictures)))


# --- label maps


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (97, 61), (128, 128)])
def test_any_size_of_picture(size: tuple[int, int], tiny: EBSeg) -> None:
    found = Segmenter(tiny).segment(array(*size), THREE)
    assert found.labels.shape == found.confidence.shape == size
    assert found.labels.dtype == np.uint16
    assert found.confidence.dtype == np.float32
    assert found.labels.min() >= 1
    assert found.labels.max() <= 3
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1


def test_segment_is_its_steps(tiny: EBSeg) -> None:
    segmenter, pixels = Segmenter(tiny), array(100, 140)
    predictions = segmenter.predict([segmenter.prepare(pixels)])

    def same(a: LabelMap, b: LabelMap) -> bool:
        return bool((a.labels == b.labels).all() and (a.confidence == b.confidence).all())

    own_size = segmenter.segment(pixels, THREE)
    assert same(own_size, segmenter.label_map(predictions, THREE, output_size=(100, 140)))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    assert same(segmenter.segment(tensor, THREE), own_size)
    threshold = float(np.median(own_size.confidence))
    other = segmenter.segment(pixels, THREE, output_size=(30, 20), threshold=threshold)
    assert other.labels.shape == (30, 20)
    assert same(other, segmenter.label_map(predictions, THREE, output_size=(30, 20), threshold=threshold))
    scores = segmenter.scores(pixels, THREE)
    assert torch.equal(scores, segmenter.score_maps(predictions, THREE, output_size=(100, 140)))
    assert segmenter.scores(tensor, THREE, output_size=(9, 8)).shape == (3, 9, 8)


def test_index_outside_the_batch(tiny: EBSeg) -> None:
    segmenter = Segmenter(tiny)
    predictions = segmenter.predict([segmenter.prepare(array(64, 64))])
    with pytest.raises(IndexError):
        segmenter.label_map(predictions, THREE, output_size=(8, 8), index=1)


# --- text


def count_calls(ebseg: EBSeg, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    original = ebseg.encode_text

    def counted(names: list[str], *args: Any) -> torch.Tensor:
        calls.append(list(names))
        return original(names, *args)

    monkeypatch.setattr(ebseg, "encode_text", counted)
    return calls


def test_text_is_embedded_once(tiny: EBSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(tiny, monkeypatch)
    segmenter = Segmenter(tiny)
    first = segmenter.encode_text(THREE)
    assert segmenter.encode_text(Vocabulary.of(["sky", "tree", "road"])) is first
    # what decides about trained or new is no part of the text
    assert segmenter.encode_text(Vocabulary.of(THREE.names, trained=[True, False, None])) is first
    assert calls == [["sky", "tree", "road"]]
    segmenter.segment(array(64, 64), THREE)
    assert len(calls) == 1


def test_other_text_is_embedded_anew(tiny: EBSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(tiny, monkeypatch)
    segmenter = Segmenter(tiny)
    first = segmenter.encode_text(THREE)
    backwards = segmenter.encode_text(Vocabulary.of(THREE.names[::-1]))
    assert (backwards.flip(0) - first).abs().max() <= 1e-6
    plain = segmenter.encode_text(Vocabulary.of(THREE.names, templates="plain"))
    assert (plain - first).abs().max() > 1e-3
    assert len(calls) == 3


def test_texts_kept_are_few(tiny: EBSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(tiny, monkeypatch)
    segmenter = Segmenter(tiny)
    vocabularies = [Vocabulary.of([f"thing {i}"], templates="plain") for i in range(40)]
    for vocabulary in vocabularies:
        segmenter.encode_text(vocabulary)
    segmenter.encode_text(vocabularies[-1])
    assert len(calls) == 40
    segmenter.encode_text(vocabularies[0])
    assert len(calls) == 41


def test_text_given_is_text_used(tiny: EBSeg, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(tiny)
    predictions = segmenter.predict([segmenter.prepare(array(64, 64))])
    wanted = segmenter.score_maps(predictions, THREE, output_size=(64, 64))
    turned = segmenter.encode_text(THREE).flip(0)
    calls = count_calls(tiny, monkeypatch)
    swapped = Vocabulary.of(["a", "b", "c"], trained=tiny.trained(THREE)[::-1])
    found = segmenter.score_maps(predictions, swapped, output_size=(64, 64), text=turned)
    assert calls == []
    assert (found.flip(0) - wanted).abs().max() <= 1e-5
