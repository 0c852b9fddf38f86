"""Label maps to RLE, PNG, arrays and overlays, and back."""

import io
import json

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ebseg_client import drawing
from service.segmentation import encode, render
from service.segmentation.colors import class_colors, to_hex

Labels = NDArray[np.uint16]


def test_statistics_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "BLOCK", 10)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (9, 7)).astype(np.uint16)
    confidence = rng.random((9, 7), np.float32)
    area, mean = encode.statistics(labels, confidence, 5)
    assert area.tolist() == [(labels == label).sum() for label in range(6)]
    assert area[5] == 0
    assert mean[5] == 0
    for label in range(4):
        assert mean[label] == pytest.approx(confidence[labels == label].mean())


@pytest.mark.parametrize(("classes", "mode"), [(1, "P"), (255, "P"), (256, "I;16"), (1024, "I;16")])
def test_label_png(classes: int, mode: str) -> None:
    labels = np.arange(classes + 1, dtype=np.uint16).reshape(1, -1)
    names = [f"Klasse „{i}“" for i in range(classes)]
    colors = class_colors([None] * classes)
    with Image.open(io.BytesIO(render.label_png(labels, names, colors))) as image:
        image.load()
        assert image.mode == mode
        assert (np.asarray(image) == labels).all()
        assert json.loads(image.info["classes"]) == ["other", *names]
        if mode == "P":
            palette = np.array(image.getpalette()).reshape(-1, 3)
            assert (palette[1 : classes + 1] == colors).all()
            assert (palette[0] == 0).all()


def test_npy() -> None:
    labels = np.array([[1, 65535]], np.uint16)
    loaded = np.load(io.BytesIO(encode.npy(labels)), allow_pickle=False)
    assert loaded.dtype == np.uint16
    assert (loaded == labels).all()


def test_overlay_blends_draws_borders_and_leaves_other_alone() -> None:
    picture = np.full((4, 6, 3), 100, np.uint8)
    labels = np.ones((4, 6), np.uint16)
    labels[:, 3:] = 2
    labels[3] = 0
    colors = np.array([[200, 0, 100], [0, 0, 0]], np.uint8)
    made = drawing.overlay(picture, labels, colors)
    assert (made[:3, :3] == (135, 65, 100)).all()
    assert (made[:3, 3] == 0).all()  # the border, opaque
    assert (made[:3, 4:] == 65).all()
    assert (made[3] == 100).all()
    assert (picture == 100).all()
    assert (drawing.overlay(picture, labels, colors, opacity=0.5)[0, 0] == (150, 50, 100)).all()


@pytest.mark.parametrize("opacity", [0.5, 0.25])
def test_overlay_blends_as_opencv_does(opacity: float) -> None:
    """Every pair of values of a channel, over more than one block."""
    picture = np.zeros((3, drawing.BLOCK // 2, 3), np.uint8)
    picture[:] = np.arange(picture.shape[1])[:, None] % 256
    labels = np.ones(picture.shape[:2], np.uint16)
    for value in range(256):
        made = drawing.overlay(picture, labels, np.full((1, 3), value, np.uint8), opacity)
        expected = cv2.addWeighted(picture, 1 - opacity, np.full_like(picture, value), opacity, 0)
        assert (made == expected).all()


def test_resized_and_webp() -> None:
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 10:] = 200
    assert encode.resized(picture, (10, 20)) is picture
    assert encode.resized(picture, (5, 10))[:, :, 0].tolist() == [[0] * 5 + [200] * 5] * 5
    assert encode.resized(picture, (20, 40)).shape == (20, 40, 3)
    with Image.open(io.BytesIO(render.webp(picture))) as image:
        assert (image.format, image.size) == ("WEBP", (20, 10))


def test_colors_are_always_the_same() -> None:
    few, many = class_colors([None] * 12), class_colors([None] * 1024)
    assert (many[:12] == few).all()
    assert len(np.unique(many, axis=0)) == 1024
    assert (class_colors([None] * 12) == few).all()


def test_chosen_colors_win_and_nobody_else_gets_them() -> None:
    first = to_hex(class_colors([None])[0])
    colors = class_colors([None, first.upper(), None])
    assert to_hex(colors[1]) == first
    assert len(np.unique(colors, axis=0)) == 3
    assert class_colors([]).shape == (0, 3)
