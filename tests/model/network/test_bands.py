"""Label maps in bands, as a GPU makes them, against those in tiles, on the CPU: the same labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model import PictureError
from model.network import kernels
from model.network.kernels import ByDevice
from model.network.label_map import (
    ClassifiedMasks,
    LabelMap,
    _cells_of,
    _in_bands,
    _in_tiles,
    _resizing_matrix,
    label_maps,
)

CASES = 300
ROUNDING = 1e-6  # of scores and confidences, relative: sums of other shapes round otherwise


def made(
    seed: int,
    image_size: tuple[int, int],
    output_size: tuple[int, int],
    queries: int = 7,
    classes: int = 3,
    threshold: float = 0.0,
) -> ClassifiedMasks:
    """Masks of a few blots, sharp class probabilities, some classes with thresholds of their own."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (-(-side // 32) * 8 for side in image_size)
    logits = 6 * torch.randn(1, queries, 3, 4, generator=generator)
    logits = torch.nn.functional.interpolate(logits, (rows, columns), mode="bilinear")[0]
    logits = logits + 0.3 * torch.randn(queries, rows, columns, generator=generator)
    own = torch.rand(classes, generator=generator)
    return ClassifiedMasks(
        logits=logits,
        image_size=image_size,
        probabilities=(3 * torch.randn(queries, classes, generator=generator)).softmax(1) * 0.9,
        labels=[1 + (i * 7) % 60_000 for i in range(classes)],
        least=[float(x) if x < 0.3 else threshold for x in own],
        output_size=output_size,
    )


def undecided(picture: ClassifiedMasks) -> Tensor:
    """Pixels whose two best classes, or confidence and threshold, are equal but for rounding, [H, W]."""
    by_row = _resizing_matrix(
        picture.logits.shape[1], picture.image_size[0], picture.output_size[0], picture.logits
    )
    by_column = _resizing_matrix(
        picture.logits.shape[2], picture.image_size[1], picture.output_size[1], picture.logits
    )
    masks = (by_row.double() @ picture.logits.double() @ by_column.double().T).sigmoid()
    scores = torch.einsum("qhw,qk->khw", masks, picture.probabilities.double())
    best, winner = scores.max(0)
    certain = best / scores.sum(0).clamp(min=1)
    near = (certain - torch.tensor(picture.least)[winner]).abs() <= ROUNDING
    if len(scores) > 1:
        first, second = scores.topk(2, 0).values
        near |= first - second <= ROUNDING * first
    return near


def check(found: LabelMap, wanted: LabelMap, picture: ClassifiedMasks) -> None:
    assert found.labels.dtype == wanted.labels.dtype == np.uint16
    assert found.confidence.dtype == wanted.confidence.dtype == np.float32
    assert np.allclose(found.confidence, wanted.confidence, rtol=1e-5, atol=1e-6)
    other = found.labels != wanted.labels
    if other.any():
        assert not (other & ~undecided(picture).numpy()).any()
        assert other.mean() <= 1e-3


sides = st.integers(1, 200)
cases = st.builds(
    made,
    st.integers(0, 2**31),
    st.tuples(sides, sides),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    queries=st.integers(1, 12),
    classes=st.sampled_from([1, 2, 3, 17, 64, 65, 300]),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


@settings(max_examples=CASES, deadline=None)
@given(cases, st.sampled_from([1, 700, 2**20]), st.sampled_from([1, 5, 64]))
def test_bands_are_tiles(picture: ClassifiedMasks, band: int, chunk: int) -> None:
    """Of bands of one row and of all, of chunks of one class and of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.network.label_map.BAND_PIXELS", ByDevice(cpu=band, cuda=band))
        patch.setattr("model.network.label_map.CLASSES_AT_ONCE", ByDevice(cpu=chunk, cuda=chunk))
        (found,) = _in_bands([picture])
    check(found, _in_tiles(picture), picture)


def test_many_pictures_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other sizes, classes and number types of labels; each as it is alone."""
    pictures = [
        made(1, (64, 96), (64, 96)),
        made(2, (50, 70), (300, 20), classes=70, threshold=0.5),
        made(3, (33, 32), (1, 1), classes=300),
    ]
    monkeypatch.setattr("model.network.label_map.LABEL_MAPS", ByDevice(cpu="bands", cuda="bands"))
    together = label_maps(pictures)
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = label_maps([picture])
        assert np.array_equal(found.labels, alone.labels)
        assert np.array_equal(found.confidence, alone.confidence)
        check(found, _in_tiles(picture), picture)
    assert label_maps([]) == []


def test_labels_of_all_sizes_arrive() -> None:
    """Those above int16's range too."""
    picture = made(4, (64, 96), (64, 96), classes=2)
    for labels in ([1, 2], [255, 256], [40_000, 65_535]):
        own = ClassifiedMasks(**{f: getattr(picture, f) for f in picture.__slots__} | {"labels": labels})
        (found,) = _in_bands([own])
        assert set(np.unique(found.labels)) - {0} <= set(labels)
        assert np.array_equal(found.labels, _in_tiles(own).labels)
        assert found.labels.max() == max(labels)


def test_the_first_of_equal_classes_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the bounds of chunks as well."""
    picture = made(5, (64, 96), (64, 96), classes=1)
    same = ClassifiedMasks(
        logits=picture.logits,
        image_size=picture.image_size,
        probabilities=picture.probabilities.expand(-1, 9).contiguous() * 0 + 0.1,
        labels=list(range(1, 10)),
        least=[0.0] * 9,
        output_size=picture.output_size,
    )
    monkeypatch.setattr("model.network.label_map.CLASSES_AT_ONCE", ByDevice(cpu=4, cuda=4))
    (found,) = _in_bands([same])
    assert (found.labels == 1).all()


def test_rows_of_a_band_are_read_from_these_cells() -> None:
    """No weight lies outside of what is computed without looking at the weights."""
    for cells, cropped, out in [
        (8, 32, 32),
        (8, 25, 7),
        (8, 29, 300),
        (160, 640, 480),
        (40, 131, 4000),
        (8, 1, 5),
    ]:
        matrix = _resizing_matrix(cells, cropped, out, torch.zeros(1))
        for first in range(0, out, 13):
            rows = slice(first, min(first + 13, out))
            used = _cells_of(rows, cells, cropped, out)
            weights = matrix[rows].clone()
            weights[:, used] = 0
            assert not weights.any(), (cells, cropped, out, rows)


def test_an_output_needs_pixels() -> None:
    with pytest.raises(PictureError, match="at least one pixel"):
        made(0, (32, 32), (0, 5))


def test_a_gpu_makes_bands_and_a_cpu_tiles() -> None:
    assert kernels.LABEL_MAPS.on(torch.device("cpu")) == "tiles"
    assert kernels.LABEL_MAPS.on(torch.device("cuda:1")) == "bands"
