"""A real model behind a real server: the mask over HTTP is the one that the model makes."""

import io
import json
import warnings
from pathlib import Path

import httpx
import numpy as np
from pycocotools import mask as coco

from model.network.balance import Balance
from model.segmenter import Segmenter
from model.storage.checkpoint import load
from model.vocabulary.classes import Vocabulary
from service.app import create_app
from service.runtime import Service
from service.server import build_server
from tests.service.fakes import encoded, in_thread, settings
from tests.waiting import WAIT, wait_until

PICTURE = np.random.default_rng(5).integers(0, 255, (9, 12, 3), np.uint8).repeat(17, 0).repeat(13, 1)
CLASSES = ["sky", "tree", "a thing without a name"]


def test_the_mask_over_http_is_the_models(tiny_checkpoint: Path) -> None:
    own = settings(checkpoint=tiny_checkpoint)
    app = create_app(own)
    service: Service = app.state.service
    document = {"classes": CLASSES, "templates": "plain", "balance": {"mean": "arithmetic"}}
    with in_thread(build_server(app, own)) as url, httpx.Client(base_url=url, timeout=WAIT) as client:
        wait_until(lambda: client.get("/readyz").status_code != 503, pause=0.05)
        files = {"image": encoded(PICTURE)}
        data = {"request": json.dumps(document)}
        answer = client.post("/v1/segment", files=files, data=data)
        npy = client.post("/v1/segment", files=files, data=data, headers={"Accept": "application/x-npy"})
        metrics = client.get("/metrics").text
    assert service.failure is None
    weights = 'ebseg_device_memory_bytes{device="cpu",kind="weights",model="ebseg-tiny",version="1"} '
    told = float(metrics.partition(weights)[2].split("\n")[0])
    vocabulary = Vocabulary.of(CLASSES, templates="plain")
    segmenter = Segmenter(load(tiny_checkpoint).ebseg)
    assert told == segmenter.ebseg.weight_bytes > 1e6
    expected = segmenter.segment(PICTURE, vocabulary, balance=Balance.arithmetic())
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ebseg-model"] == "ebseg-tiny/1"
    assert answer.headers["x-ebseg-untrained"] == "true"
    assert (np.load(io.BytesIO(npy.content)) == expected.labels).all()
    body = answer.json()
    assert [item["trained"] for item in body["classes"]] == [True, True, False]
    for item in body["classes"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
            mask = coco.decode(item["rle"])
        assert (mask == (expected.labels == item["label"])).all()
        if item["area"]:
            confidence = expected.confidence[expected.labels == item["label"]].mean()
            assert abs(item["mean_confidence"] - confidence) <= 0.5001e-4  # four decimals
