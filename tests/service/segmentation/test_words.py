"""Synonyms, thresholds of classes and ignored classes over HTTP, with EBSeg-tiny."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model import Segmenter, Vocabulary
from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import ClassName
from service.app import create_app
from service.server import build_server
from tests.service.fakes import in_thread, settings
from tests.waiting import WAIT, wait_until

VILLAGE = Path(__file__).parents[3] / "samples" / "village.jpg"
CLASSES: list[Any] = [
    {"name": "house", "synonyms": ["umbrella"]},
    {"name": "sky", "ignore": True},
    {"name": "clouds", "threshold": 0.5, "color": "#010203"},
    "grass",
]
SIZE = {"long_side": 240}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    own = settings(checkpoint=packaged_checkpoint())
    with (
        in_thread(build_server(create_app(own), own)) as url,
        httpx.Client(base_url=url, timeout=WAIT) as made,
    ):
        wait_until(lambda: made.get("/readyz").status_code == 200, pause=0.05)
        yield made


@pytest.fixture(scope="module")
def expected() -> NDArray[np.uint16]:
    vocabulary = Vocabulary.of(
        [
            ClassName(name="house", synonyms=("house", "umbrella"), prompts=("umbrella",)),
            ClassName(name="sky", ignored=True),
            ClassName(name="clouds", threshold=0.5),
            "grass",
        ]
    )
    picture = np.asarray(Image.open(VILLAGE).convert("RGB"))
    size = (round(picture.shape[0] * 240 / picture.shape[1]), 240)
    return Segmenter(load(packaged_checkpoint()).ebseg).segment(picture, vocabulary, output_size=size).labels


def post(client: httpx.Client, accept: str = "application/json", **document: Any) -> httpx.Response:
    data = {"request": json.dumps({"classes": CLASSES, "output_size": SIZE, "background": None, **document})}
    files = {"image": VILLAGE.read_bytes()}
    return client.post("/v1/segment", data=data, files=files, headers={"Accept": accept})


def test_the_map_is_the_models(client: httpx.Client, expected: NDArray[np.uint16]) -> None:
    npy = np.load(io.BytesIO(post(client, "application/x-npy").content))
    assert (npy == expected).all()
    assert set(np.unique(npy)) == {0, 1, 2, 3}


def test_what_is_ignored_is_not_answered(client: httpx.Client, expected: NDArray[np.uint16]) -> None:
    body = post(client, outputs=["rle", "polygons", "scores"]).json()
    assert [(one["name"], one["label"]) for one in body["classes"]] == [
        ("house", 1),
        ("clouds", 2),
        ("grass", 3),
    ]
    assert [one["area"] for one in body["classes"]] == [int((expected == label).sum()) for label in (1, 2, 3)]
    assert body["classes"][1]["color"] == "#010203"
    assert body["background"] == {"threshold": None, "source": "request"}
    assert body["other"]["area"] == int((expected == 0).sum()) > 0
    assert all(len(one["polygons"]) > 0 for one in body["classes"])
    assert len(body["scores"]) > 0
    png = Image.open(io.BytesIO(post(client, "image/png").content))
    assert (np.asarray(png) == expected).all()
    assert png.getpalette()[6:9] == [1, 2, 3]  # type: ignore[index]


def test_the_mean_of_the_words_is_another_answer(client: httpx.Client) -> None:
    best = np.load(io.BytesIO(post(client, "application/x-npy").content))
    mean = np.load(io.BytesIO(post(client, "application/x-npy", synonym_mode="mean").content))
    assert 0 < (best != mean).mean() < 0.5
    form = {"classes": ["house", "sky"], "synonym_mode": "mean"}
    files = {"image": VILLAGE.read_bytes()}
    assert client.post("/v1/segment", data=form, files=files).status_code == 200
    refused = client.post("/v1/segment", data={**form, "synonym_mode": "worst"}, files=files)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "synonym_mode")


def test_a_stored_list_keeps_all_of_it(client: httpx.Client, expected: NDArray[np.uint16]) -> None:
    stored = client.put("/v1/vocabularies/mine", json={"classes": CLASSES})
    assert stored.status_code == 201, stored.text
    assert stored.json()["classes"] == [
        {"name": "house", "synonyms": ["umbrella"]},
        {"name": "sky", "synonyms": [], "ignore": True},
        {"name": "clouds", "synonyms": [], "threshold": 0.5, "color": "#010203"},
        {"name": "grass", "synonyms": []},
    ]
    answer = post(client, "application/x-npy", classes=None, vocabulary="mine")
    assert (np.load(io.BytesIO(answer.content)) == expected).all()


def test_words_that_classes_share_are_read_once_and_serve_both(client: httpx.Client) -> None:
    classes = [{"name": "lamp", "synonyms": ["tower"]}, {"name": "castle", "synonyms": ["tower"]}]
    body = post(client, classes=classes).json()
    assert [one["name"] for one in body["classes"]] == ["lamp", "castle"]
    again = post(client, classes=classes).json()
    assert again["caches"]["text"] == "l1"
    assert [one["area"] for one in again["classes"]] == [one["area"] for one in body["classes"]]


@pytest.mark.parametrize(
    ("classes", "field"),
    [
        ([{"name": "a", "ignore": True}], "classes"),
        ([{"name": "a", "threshold": 2}], "classes.0.threshold"),
        ([{"name": "a", "synonyms": ["b\nc"]}], "classes.0"),
        ([{"name": f"c{i}", "synonyms": [f"p{i} {j}" for j in range(99)]} for i in range(60)], "classes"),
    ],
)
def test_what_cannot_be_used_is_told(client: httpx.Client, classes: list[Any], field: str) -> None:
    answer = post(client, classes=classes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)
