"""The client's reader of run lengths, beside pycocotools."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from ebseg_client.errors import AnswerError
from ebseg_client.labels import Maps, labels_of, read_npy, run_lengths
from service.segmentation import encode
from service.segmentation.render import label_png
from service.segmentation.run_lengths import rles as rles_of


def decoded(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
        mask = coco.decode({"size": [height, width], "counts": counts.encode()})
    return np.asarray(mask, bool)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    classes=st.integers(1, 9),
    coarse=st.booleans(),
)
def test_label_maps_and_masks_come_back(
    seed: int, height: int, width: int, classes: int, coarse: bool
) -> None:
    random = np.random.default_rng(seed)
    side = 8 if coarse else 1
    small = random.integers(0, classes + 1, (height, width), np.uint16)
    labels = small.repeat(side, 0).repeat(side, 1)[:height, :width]
    rles = rles_of(labels, classes)
    counts = tuple(rle["counts"] for rle in rles)
    assert (labels_of(counts, height, width) == labels).all()
    maps = Maps(height, width, rles=counts)
    for label in range(1, classes + 1):
        assert (maps.mask(label) == decoded(counts[label - 1], height, width)).all()
    assert (maps.labels == labels).all()
    assert (maps.mask(1) == (labels == 1)).all()


def test_long_runs() -> None:
    labels = np.zeros((3000, 2000), np.uint16)
    labels[100:2900, 5:1900] = 1
    (rle,) = rles_of(labels, 1)
    assert sum(run_lengths(rle["counts"])) == 6_000_000
    assert (labels_of([rle["counts"]], 3000, 2000) == labels).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("1 ", "the character ' '"),
        ("1é", "the character"),
        ("P", "end within a number"),
        ("1", "1 pixels, expected 6"),
        ("7", "7 pixels, expected 6"),
        ("O7", "expected 6"),  # a negative run whose sum would fit
        (40 * "o" + "0", "beyond all numbers"),
    ],
)
def test_damaged_run_lengths(counts: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        labels_of([counts], 2, 3)


def test_damaged_run_lengths_take_no_memory() -> None:
    with pytest.raises(AnswerError, match="1 pixels, expected 1000000000000000000"):
        labels_of(["1"], 10**9, 10**9)


def test_maps_that_no_memory_holds_are_refused() -> None:
    huge = run_lengths_of([0, 1 << 40])
    with pytest.raises(AnswerError, match="maps of 1099511627776 pixels, more than"):
        labels_of([huge], 1 << 20, 1 << 20)
    with pytest.raises(AnswerError, match="beyond all numbers"):
        run_lengths(30 * "o" + "0")
    # whose sum would come round to the right one in 64 bits
    with pytest.raises(AnswerError, match="expected 6"):
        labels_of([run_lengths_of([6, 1 << 57, 0] + 127 * [0, 1 << 57])], 2, 3)


def run_lengths_of(runs: list[int]) -> str:
    """COCO's compressed text, of numbers of any size."""
    text = ""
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        while True:
            bits, rest = rest & 31, rest >> 5
            last = rest == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    assert run_lengths(text) == runs
    return text


def saved(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_damaged_files() -> None:
    for damaged in (
        b"",
        b"\x93NUMPY and then nothing",
        b"\x80\x04N.",
        saved(np.ones((1, 1), np.uint16))[:-1],
    ):
        with pytest.raises(AnswerError, match="array that cannot be read"):
            read_npy(damaged, np.uint16, (1, 1))
    for other in (np.ones((2, 2), np.uint16), np.ones((1, 1), np.float16), np.ones((1, 1), [("a", "u2")])):
        with pytest.raises(AnswerError, match=r"an array of .*, expected uint16 \[1, 1\]"):
            _ = Maps(1, 1, npy=saved(other)).labels
    with pytest.raises(AnswerError, match="label map that cannot be read"):
        _ = Maps(1, 1, png=b"no png").labels
    for picture in (Image.new("P", (2, 2)), Image.new("RGB", (1, 1))):
        with pytest.raises(AnswerError, match=r"a label map of .* expected 1 x 1"):
            _ = Maps(1, 1, png=png(picture)).labels


def test_files_cut_or_changed_anywhere_are_one_error() -> None:
    """Whatever Pillow and NumPy raise at them."""
    labels = np.arange(40, dtype=np.uint16).reshape(5, 8) % 3
    files = {"png": label_png(labels, ["a", "b"], np.zeros((2, 3), np.uint8)), "npy": encode.npy(labels)}
    random = np.random.default_rng(0)
    refused = 0
    for name, whole in files.items():
        for _ in range(400):
            damaged = bytearray(whole)
            if random.random() < 0.3:
                del damaged[int(random.integers(len(damaged))) :]
            for _ in range(int(random.integers(1, 4))):
                if damaged:
                    damaged[int(random.integers(len(damaged)))] = int(random.integers(256))
            try:
                made = Maps(5, 8, **{name: bytes(damaged)}).labels  # type: ignore[arg-type]
            except AnswerError:
                refused += 1
            else:
                assert made.shape == (5, 8)
                assert made.dtype == np.uint16
    assert refused > 200
