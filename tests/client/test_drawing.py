"""Answers drawn: over the picture, alone, in a notebook, and as another tool's detections."""

import base64
import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
import supervision
from PIL import Image

from ebseg_client import EBSegClient, InputError, RegionOptions
from tests.service.fakes import PNG, live, picture

CLASSES = ["sky", "tree <b>", "road"]


@pytest.fixture(scope="module")
def client() -> Iterator[EBSegClient]:
    with live() as (url, _), EBSegClient(url) as made:
        yield made


def test_overlay(client: EBSegClient) -> None:
    answer = client.segment(PNG, CLASSES, outputs=["rle"])
    drawn = np.asarray(answer.overlay(PNG))
    assert drawn.shape == (6, 8, 3)
    blended = 0.65 * picture()[3, 1] + 0.35 * np.asarray(answer.overlay())[3, 1]
    assert np.abs(drawn[3, 1] - blended).max() <= 1  # no border there
    colors = {one.label: one.color for one in answer.classes}
    for label, color in colors.items():
        red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
        assert (np.asarray(answer.overlay())[answer.labels == label] == (red, green, blue)).all()
    served = client.segment(PNG, CLASSES, outputs=["overlay"])
    with Image.open(io.BytesIO(served.overlay_file or b"")) as webp:
        assert np.array_equal(np.asarray(webp.convert("RGB")), np.asarray(served.overlay()))
    with pytest.raises(InputError, match="cannot be drawn on"):
        answer.overlay(b"no picture")


def test_show_opens_it(client: EBSegClient, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
    client.segment(PNG, CLASSES).show(PNG)
    assert [image.size for image in shown] == [(8, 6)]


def test_a_notebook_shows_colours_and_names(client: EBSegClient) -> None:
    answer = client.segment(PNG, CLASSES)
    page = answer._repr_html_()
    assert "tree &lt;b&gt;" in page
    assert "<b>" not in page
    source = re.search(r"base64,([^\"]+)", page)
    assert source is not None
    with Image.open(io.BytesIO(base64.b64decode(source[1]))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(answer.overlay()))


@pytest.mark.parametrize("outputs", [["rle"], ["rle", "regions"]])
def test_supervision_has_the_same_pixels(client: EBSegClient, outputs: list[str]) -> None:
    answer = client.segment(PNG, CLASSES, outputs=outputs)  # type: ignore[arg-type]
    found = answer.to_supervision()
    assert isinstance(found, supervision.Detections)
    drawn = np.zeros_like(answer.labels)
    for mask, label, box, name in zip(
        found.mask, found.class_id, found.xyxy, found.data["class_name"], strict=True
    ):
        drawn[mask] = label
        y, x = np.nonzero(mask)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert name == CLASSES[label - 1]
    assert np.array_equal(drawn, answer.labels)


def test_regions_without_run_lengths_have_no_masks(client: EBSegClient) -> None:
    answer = client.segment(PNG, CLASSES, outputs=["regions"], regions=RegionOptions(shape="none"))
    assert answer.regions
    with pytest.raises(InputError, match="shape"):
        answer.regions[0].mask()
