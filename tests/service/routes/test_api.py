"""Requests and answers of the whole app, in this process, with an engine that needs no model."""

import base64
import dataclasses
import io
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model.confidence.caution import untrained
from tests.service.fakes import BASE64, INFO, PNG, FakeEngine, encoded, picture, post, problem, running

pytestmark = pytest.mark.anyio

LABELS = picture()[:, :, 0].astype(int) * 2 // 256 + 1  # of two classes


def decoded(rle: dict[str, Any]) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
        mask: NDArray[np.uint8] = coco.decode(rle)
    return mask


async def test_json_answer_by_multipart() -> None:
    async with running() as (client, _):
        answer = await post(client, headers={"X-Request-ID": "my.id-7"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "my.id-7"
    assert answer.headers["x-ebseg-model"] == "fake/3"
    assert "x-ebseg-untrained" not in answer.headers
    body = answer.json()
    assert body["request_id"] == "my.id-7"
    assert body["size"] == {"width": 8, "height": 6}
    assert body["model"] == {"name": "fake", "version": 3, "digest": "d" * 64, "untrained": False}
    assert set(body) == {"request_id", "size", "model", "caches", "classes", "background", "timings_ms"}
    assert body["caches"] == {"text": "embedded", "prediction": "miss"}
    for index, (name, item) in enumerate(zip(("sky", "tree"), body["classes"], strict=True)):
        mask = np.equal(LABELS, index + 1)
        assert item["name"] == name
        assert item["label"] == index + 1
        assert re.fullmatch("#[0-9a-f]{6}", item["color"])
        assert item["trained"] is (name == "tree")
        assert item["area"] == mask.sum() == 24
        assert item["fraction"] == 0.5
        assert item["mean_confidence"] == pytest.approx(0.5, abs=0.01)
        assert item["rle"]["size"] == [6, 8]
        assert (decoded(item["rle"]) == mask).all()
        assert "polygons" not in item
    stages = {
        "decode_wait",
        "decode",
        "queue",
        "predict",
        "text",
        "classify",
        "encode_wait",
        "encode",
        "total",
    }
    assert set(body["timings_ms"]) == stages | {"total"}
    timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert set(timing) == stages
    assert all(0 <= float(timing[stage]) <= float(timing["total"]) for stage in stages)


async def test_json_body_answers_the_same() -> None:
    async with running() as (client, _):
        multipart = (await post(client)).json()
        plain = (await client.post("/v1/segment", json={"image": BASE64, "classes": ["sky", "tree"]})).json()
    assert plain["classes"] == multipart["classes"]


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": "sky, tree"},
        {"classes": ["sky", "tree"]},
        {"classes": ["sky,tree"], "outputs": "rle", "templates": "plain", "output_size": "image"},
        {"classes": "sky,tree", "model": "fake", "version": "3", "timeout_ms": "5000", "mean": "geometric"},
    ],
)
async def test_form_fields_answer_the_same(fields: dict[str, Any]) -> None:
    async with running() as (client, _):
        expected = (await post(client)).json()
        answer = await client.post("/v1/segment", files={"image": ("p.png", PNG)}, data=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"] == expected["classes"]


async def test_fields_that_are_left_empty_in_a_form_count_as_left_out() -> None:
    empty = dict.fromkeys(("request", "background", "outputs", "version", "templates"), "")
    async with running() as (client, _):
        expected = (await post(client)).json()
        files = {"image": ("p.png", PNG)}
        answer = await client.post("/v1/segment", files=files, data={"classes": "sky,tree", **empty})
        nothing = await client.post("/v1/segment", files=files, data={"classes": "", **empty})
        unknown = await client.post("/v1/segment", files=files, data={"classes": "sky", "class": ""})
        one = await client.post("/v1/segment", files=files, data={"classes": ["sky", ""]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"] == expected["classes"]
    assert "classes" in problem(nothing, 422)["detail"]
    assert problem(unknown, 422)["errors"][0]["field"] == "class"
    assert "empty" in problem(one, 422)["detail"]


async def test_request_part_may_be_a_file() -> None:
    document = json.dumps({"classes": ["sky", "tree"]}).encode()
    files = {"image": ("p.png", PNG, "image/png"), "request": ("r.json", document, "application/json")}
    async with running() as (client, _):
        answer = await client.post("/v1/segment", files=files)
    assert [item["area"] for item in answer.json()["classes"]] == [24, 24]


async def test_what_reaches_the_engine() -> None:
    engine = FakeEngine()
    document = {
        "classes": ["sky", {"name": "tree", "synonyms": ["bush"], "trained": True, "color": "#0A0b0C"}],
        "templates": ["one {}", "two {}, too"],
        "background": {"threshold": 0.5},
        "balance": {"mean": "arithmetic"},
        "output_size": {"long_side": 16},
    }
    async with running(engine) as (client, _):
        answer = await post(client, document)
    job = engine.jobs[0]
    assert [item.name for item in job.vocabulary.classes] == ["sky", "tree"]
    assert job.vocabulary.classes[1].synonyms == ("tree", "bush")
    assert job.vocabulary.classes[1].trained is True
    assert job.vocabulary.templates == ("one {}", "two {}, too")
    assert job.threshold == 0.5
    assert job.balance is not None
    assert job.balance.mean == "arithmetic"
    assert (job.balance.trained.supervised, job.balance.new.supervised) == (0.2, 0)
    assert job.output_size == (12, 16)
    assert not job.scores
    assert 29 < job.deadline.seconds <= 30
    body = answer.json()
    assert body["size"] == {"width": 16, "height": 12}
    assert body["classes"][1]["color"] == "#0a0b0c"
    assert body["other"]["area"] + sum(item["area"] for item in body["classes"]) == 16 * 12
    assert body["other"]["fraction"] == body["other"]["area"] / (16 * 12) > 0.4


async def test_balance_in_all_its_forms() -> None:
    engine = FakeEngine()
    weights = {"supervised": 0.5, "mask_attention": 0.25, "frozen": 0.25}
    async with running(engine) as (client, _):
        await post(client)
        await post(client, {"classes": ["a"], "balance": {"mean": "geometric"}})
        await post(
            client, {"classes": ["a"], "balance": {"mean": "geometric", "trained": weights, "new": weights}}
        )
    none, default, own = (job.balance for job in engine.jobs)
    assert none is None
    assert default == INFO.balance
    assert own is not None
    assert own.new == own.trained
    assert own.new.frozen == 0.25


async def test_all_outputs_of_a_json_answer() -> None:
    document = {
        "classes": ["sky", {"name": "tree", "color": "#102030"}],
        "outputs": ["png", "overlay", "polygons", "npy", "scores"],
    }
    async with running() as (client, _):
        body = (await post(client, document)).json()
    files = {name: base64.b64decode(body[name]) for name in ("png", "overlay", "npy", "scores")}
    with Image.open(io.BytesIO(files["png"])) as image:
        assert (np.asarray(image) == LABELS).all()
    with Image.open(io.BytesIO(files["overlay"])) as image:
        assert (image.format, image.size) == ("WEBP", (8, 6))
    assert (np.load(io.BytesIO(files["npy"])) == LABELS).all()
    scores = np.load(io.BytesIO(files["scores"]))
    assert (scores.dtype, scores.shape) == (np.float16, (2, 6, 8))
    assert (scores.argmax(0) + 1 == LABELS).all()
    regions = body["classes"][1]["polygons"]
    assert len(regions) == 1
    assert sorted(regions[0]["exterior"]) == [[4, 0], [4, 6], [8, 0], [8, 6]]
    assert regions[0]["holes"] == []
    assert "rle" not in body["classes"][0]


async def test_png_answer() -> None:
    document = {"classes": [{"name": "sky", "color": "#ff8000"}, "bäum"]}
    async with running() as (client, _):
        answer = await post(client, document, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-ebseg-model"] == "fake/3"
    assert "predict;dur=" in answer.headers["server-timing"]
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        assert image.mode == "P"
        assert (np.asarray(image) == LABELS).all()
        assert (image.getpalette() or [])[:6] == [0, 0, 0, 255, 128, 0]
        assert json.loads(image.info["classes"]) == ["other", "sky", "bäum"]


async def test_webp_and_npy_answers() -> None:
    async with running() as (client, _):
        webp = await post(client, headers={"Accept": "image/webp"})
        npy = await post(client, headers={"Accept": "application/x-npy;q=0.9, text/html"})
    assert webp.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(webp.content)) as image:
        assert (image.format, image.size) == ("WEBP", (8, 6))
    array = np.load(io.BytesIO(npy.content))
    assert array.dtype == np.uint16
    assert (array == LABELS).all()


async def test_png_of_many_classes_is_16_bit_grey() -> None:
    async with running() as (client, _):
        answer = await post(client, {"vocabulary": "ade20k-847"}, headers={"Accept": "image/png"})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode == "I;16"
        labels = np.asarray(image)
    assert (labels == picture()[:, :, 0].astype(int) * 847 // 256 + 1).all()


async def test_an_untrained_model_says_so_in_every_answer() -> None:
    engine = FakeEngine(dataclasses.replace(INFO, untrained=True))
    async with running(engine) as (client, _):
        body = await post(client)
        png = await post(client, headers={"Accept": "image/png"})
        model = await client.get("/v1/models/fake")
    assert body.json()["model"]["untrained"] is True
    assert body.json()["warnings"] == [dataclasses.asdict(untrained("fake"))]
    assert body.headers["x-ebseg-warnings"] == png.headers["x-ebseg-warnings"] == "untrained"
    assert body.headers["x-ebseg-untrained"] == png.headers["x-ebseg-untrained"] == "true"
    assert model.json()["untrained"] is True


async def test_absent_classes_have_no_confidence() -> None:
    async with running() as (client, _):
        body = (await post(client, {"vocabulary": "voc-20", "outputs": ["rle", "polygons"]})).json()
    absent = [item for item in body["classes"] if item["area"] == 0]
    assert len(body["classes"]) == 20
    assert len(absent) == 12
    assert all(item["mean_confidence"] is None and item["polygons"] == [] for item in absent)
    assert decoded(absent[0]["rle"]).sum() == 0


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF", "BMP", "GIF"])
async def test_other_formats_and_orientation(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {"exif": exif} if form in ("JPEG", "WEBP", "TIFF") else {}
    data = encoded(picture(16, 32), form, **options)
    async with running() as (client, _):
        answer = await client.post("/v1/segment", files={"image": data}, data={"classes": "a"})
    width, height = (16, 32) if options else (32, 16)
    assert answer.json()["size"] == {"width": width, "height": height}


async def test_models_and_vocabularies() -> None:
    async with running() as (client, _):
        models = (await client.get("/v1/models")).json()["models"]
        model = (await client.get("/v1/models/fake")).json()
        unknown_model = await client.get("/v1/models/other")
        stored = (await client.get("/v1/vocabularies")).json()["vocabularies"]
        voc = (await client.get("/v1/vocabularies/voc-20")).json()
        unknown = await client.get("/v1/vocabularies/nothing")
    assert models == [model]
    assert model["variant"] == "tiny"
    assert (model["device"], model["dtype"]) == ("cpu", "float32")
    problem(unknown_model, 404)
    assert {item["name"]: item["size"] for item in stored}["ade20k-847"] == 847
    assert voc["size"] == len(voc["classes"]) == 20
    assert voc["classes"][0]["name"] == "aeroplane"
    assert "nothing" not in problem(unknown, 404)["detail"]


async def test_docs_know_bodies_answers_and_problems() -> None:
    async with running() as (client, _):
        assert (await client.get("/docs")).status_code == 200
        schema = (await client.get("/openapi.json")).json()
    operation = schema["paths"]["/v1/segment"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        *("multipart/form-data", "application/json"),
        # the picture as the whole body
        *("image/jpeg", "image/png", "image/webp", "image/*", "application/octet-stream"),
    }
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "image/png",
        "image/webp",
        "application/x-npy",
    }
    for status in ("400", "404", "406", "408", "413", "415", "422", "429", "500", "503", "504"):
        assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["components"]["schemas"])
    assert {"SegmentRequest", "SegmentAnswer", "Problem"} <= references
