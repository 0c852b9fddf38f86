"""As many classes as LVIS has, where a setting allows them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.service.fakes import BASE64, PNG, fields, problem, running

pytestmark = pytest.mark.anyio
LVIS = 1203
NAMES = [f"thing {chr(97 + at // 676)}{chr(97 + at // 26 % 26)}{chr(97 + at % 26)}" for at in range(LVIS)]


async def test_a_setting_allows_them_through_every_door() -> None:
    async with running(max_classes=LVIS) as (client, _):
        document = {"image": BASE64, "classes": NAMES, "outputs": ["rle", "png", "npy"]}
        whole = await client.post("/v1/segment", json=document)
        repeated = [("classes", (None, name)) for name in NAMES]
        form = await client.post("/v1/segment", files=[("image", ("a.png", PNG)), *repeated])
        stored = await client.put("/v1/vocabularies/lvis", json={"classes": ", ".join(NAMES)})
        named = await client.post("/v1/segment", json={"image": BASE64, "vocabulary": "lvis"})
        listed = (await client.get("/v1/vocabularies")).json()["vocabularies"]
    assert stored.status_code == 201
    assert {one["name"]: one["size"] for one in listed}["lvis"] == LVIS
    for answer in (whole, form, named):
        assert [one["name"] for one in answer.json()["classes"]] == NAMES
    labels = np.load(io.BytesIO(base64.b64decode(whole.json()["npy"])))
    with Image.open(io.BytesIO(base64.b64decode(whole.json()["png"]))) as png:
        assert png.mode == "I;16"
        assert (np.asarray(png) == labels).all()
    assert labels.max() > 255
    assert len({one["color"] for one in whole.json()["classes"]}) == LVIS


async def test_without_it_the_setting_is_named() -> None:
    async with running() as (client, _):
        for path, sent in (("/v1/segment", {"image": BASE64}), ("/v1/vocabularies/lvis", {})):
            method = "POST" if sent else "PUT"
            answer = await client.request(method, path, json={**sent, "classes": NAMES})
            told = fields(problem(answer, 422))["classes"]
            assert told == "1203 classes are too many; at most 1024 are taken (setting max_classes)"
        beyond = await client.post("/v1/segment", json={"image": BASE64, "classes": ["a"] * 4097})
        assert fields(problem(beyond, 422)) == {"classes": "must have at most 4096 entries"}
