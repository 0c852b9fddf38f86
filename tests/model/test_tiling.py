"""Large pictures in tiles: where they lie, what they count, and that nothing is seen of their edges."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import EBSeg, PictureError, Segmenter, Vocabulary
from model.segmenter import BandRequest
from model.tiling import MOST_TILES, TiledAxis, TileLayout, Tiling, tiling_document
from tests.golden.weights import picture

THREE = Vocabulary.of(["sky", "tree", "road"])


@pytest.mark.parametrize("side", [64, 65, 128, 129, 500])
@pytest.mark.parametrize(("size", "overlap"), [(64, 0), (64, 16), (64, 40), (128, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.37, 1.9])
def test_tiles_cover_an_axis_and_their_weights_are_one(
    side: int, size: int, overlap: int, scale: float
) -> None:
    axis = TiledAxis(side, round(side * scale), Tiling(size=size, overlap=overlap))
    starts = axis.starts
    assert starts[0] == 0
    assert starts[-1] + axis.size == side
    gaps = np.diff(starts)
    assert (gaps >= 1).all()
    assert (gaps <= size - overlap).all()
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    whole = slice(0, axis.output)
    weights = np.stack([axis.weights(at, whole) for at in axis.covering(whole)])
    assert np.abs(weights.sum(0) - 1).max() < 1e-9
    assert weights.min() >= 0
    centres = axis.centres(whole)
    for at, start in enumerate(starts):
        inside = (centres >= start) & (centres <= start + axis.size)
        assert (weights[at][~inside] == 0).all()
    if overlap > 1 and scale == 1.0:
        assert np.abs(np.diff(weights, axis=1)).max() <= 2 / overlap  # no jump: no seam
    # bands follow one another, and each is covered by its tiles
    layout = TileLayout((side, 64), (axis.output, 64), axis.tiling)
    bands = [layout.band(at) for at in range(axis.count)]
    assert [band.start for band in bands[1:]] == [band.stop for band in bands[:-1]]
    assert (bands[0].start, bands[-1].stop) == (0, axis.output)
    for at in range(axis.count):
        assert set(layout.needed(at)) <= set(range(at + 1))


@pytest.mark.parametrize(("size", "overlap"), [(63, 0), (20_000, 0), (512, 512), (512, -1), (512, 600)])
def test_tilings_that_cannot_be(size: int, overlap: int) -> None:
    with pytest.raises(PictureError, match=r"pixels"):
        Tiling(size=size, overlap=overlap)


def test_too_many_tiles() -> None:
    layout = TileLayout((10_000, 10_000), (10_000, 10_000), Tiling(size=64, overlap=63))
    assert layout.count == 9937**2
    with pytest.raises(PictureError, match="at most 1024 are taken; take larger ones"):
        layout.check(MOST_TILES)


def test_what_a_form_says() -> None:
    assert tiling_document("512") == {"size": 512}
    assert tiling_document(" 512, 64 ") == {"size": 512, "overlap": 64}
    for wrong in ("", "big", "512,64,2", "-512", "1e3", "512,"):
        with pytest.raises(ValueError, match="must be SIZE or SIZE,OVERLAP"):
            tiling_document(wrong)


def array(height: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture(height, width, 0.25).permute(1, 2, 0).numpy())


def in_bands(
    segmenter: Segmenter, pixels: NDArray[np.uint8], layout: TileLayout
) -> tuple[NDArray[np.uint16], NDArray[np.float32], torch.Tensor]:
    """Labels, confidence and scores by all bands of a picture."""
    predictions = {
        (row, column): segmenter.predict([segmenter.prepare(pixels[layout.part(row, column)])])
        for row in range(layout.rows.count)
        for column in range(layout.columns.count)
    }
    labels, confidence, scores = [], [], []
    for at in range(layout.rows.count):
        needed = layout.needed(at)
        if not needed:
            continue
        own = {place: one for place, one in predictions.items() if place[0] in needed}
        request = BandRequest(layout=layout, band=at, predictions=own, vocabulary=THREE, threshold=0.2)
        found = segmenter.band_map(request)
        labels.append(found.labels)
        confidence.append(found.confidence)
        scores.append(segmenter.band_scores(request))
    return np.concatenate(labels), np.concatenate(confidence), torch.cat(scores, 1)


@pytest.mark.parametrize("output", [(150, 200), (75, 100), (300, 333)])
def test_a_single_tile_is_the_picture(output: tuple[int, int], tiny: EBSeg) -> None:
    segmenter, pixels = Segmenter(tiny, short_side=96, long_side=192), array(150, 200)
    layout = TileLayout((150, 200), output, Tiling(size=256, overlap=0))
    labels, confidence, scores = in_bands(segmenter, pixels, layout)
    whole = segmenter.segment(pixels, THREE, output_size=output, threshold=0.2)
    wanted = segmenter.scores(pixels, THREE, output_size=output)
    assert (labels != whole.labels).mean() < 1e-3  # ties that rounding decides
    assert np.abs(confidence - whole.confidence).max() < 1e-4
    assert (scores - wanted).abs().max() < 1e-4


def test_overlapping_tiles_are_the_weighted_mean_of_their_own_scores(tiny: EBSeg) -> None:
    segmenter, pixels = Segmenter(tiny, short_side=64, long_side=128), array(150, 230)
    layout = TileLayout((150, 230), (150, 230), Tiling(size=96, overlap=24))
    labels, confidence, scores = in_bands(segmenter, pixels, layout)
    wanted = torch.zeros(3, 150, 230, dtype=torch.float64)
    for row in range(layout.rows.count):
        for column in range(layout.columns.count):
            part = layout.part(row, column)
            own = segmenter.scores(np.ascontiguousarray(pixels[part]), THREE).double()
            weights = np.outer(layout.rows.weights(row, part[0]), layout.columns.weights(column, part[1]))
            wanted[:, part[0], part[1]] += own * torch.from_numpy(weights)
    assert (scores - wanted).abs().max() < 1e-4
    best, winner = wanted.max(0)
    certain = (best / wanted.sum(0).clamp(min=1)).numpy()
    assert np.abs(confidence - certain).max() < 1e-4
    expected = np.where(certain >= 0.2, winner.numpy() + 1, 0)
    assert (labels != expected).mean() < 1e-3
