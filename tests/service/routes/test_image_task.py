"""Hugging Face's task image-segmentation, by huggingface_hub's own client over a socket, and by hand."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from tests.service.fakes import BASE64, PNG, encoded, fields, live, picture, post, problem, running

URL = "/v1/tasks/image-segmentation"
KEY = "a key of some length"


def test_the_client_of_huggingface_hub(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with live(api_keys=KEY) as (address, _):
        labels = np.load(
            io.BytesIO(
                httpx.post(
                    f"{address}/v1/segment?classes=sky,tree",
                    content=PNG,
                    headers={"Content-Type": "image/png", "Accept": "application/x-npy", "X-API-Key": KEY},
                ).content
            )
        )
        client = InferenceClient(model=f"{address}{URL}?classes=sky,tree", token=KEY)
        for given in (PNG, file, str(file)):
            segments = client.image_segmentation(given)
            assert [one.label for one in segments] == ["sky", "tree"]
            for label, one in enumerate(segments, 1):
                mask = one.mask
                assert isinstance(mask, Image.Image)
                assert mask.mode == "L"
                assert np.array_equal(np.asarray(mask), np.where(labels == label, 255, 0))
                assert one.score is not None
                assert 0 <= one.score <= 1
        some = client.image_segmentation(PNG, threshold=0.0, mask_threshold=0.5, subtask="semantic")
        counted = [int((np.asarray(one.mask) > 0).sum()) for one in some]
        assert 0 < sum(counted) < labels.size
        assert client.image_segmentation(PNG, threshold=1.0) == []
        with pytest.raises(HfHubHTTPError, match="422"):
            client.image_segmentation(PNG, subtask="panoptic")
        with pytest.raises(HfHubHTTPError, match="401"):
            InferenceClient(
                model=f"{address}{URL}?classes=a", token="no key that anybody has"
            ).image_segmentation(PNG)


@pytest.mark.anyio
async def test_classes_as_a_parameter() -> None:
    async with running() as (client, service):
        document = {"inputs": BASE64, "parameters": {"classes": ["sky", "tree"], "threshold": 0.0}}
        answer = await client.post(URL, json=document)
        alone = await post(client)
        data = {"inputs": f"data:image/png;base64,{BASE64}", "parameters": {"classes": "sky,tree"}}
        assert (await client.post(URL, json=data)).json() == answer.json()
        listed = await client.post(f"{URL}?vocabulary=voc-20", content=PNG)
        assert service.memory.reserved == 0
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ebseg-model"] == "fake/3"
    expected = {one["name"]: one for one in alone.json()["classes"]}
    for one in answer.json():
        assert one["score"] == expected[one["label"]]["mean_confidence"]
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["mask"]))))
        assert int((mask == 255).sum()) == expected[one["label"]]["area"]
        assert mask.shape == (6, 8)
    assert listed.status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("", {"inputs": BASE64}, "classes"),
        ("?classes=a", {"inputs": BASE64, "parameters": {"classes": ["b"]}}, "classes"),
        ("?classes=a", {"inputs": BASE64, "parameters": {"overlap_mask_area_threshold": 0.5}},
         "parameters.overlap_mask_area_threshold"),
        ("?classes=a", {"inputs": BASE64, "parameters": {"threshold": 2}}, "parameters.threshold"),
        ("?classes=a", {"inputs": "no base64!"}, "inputs"),
        ("?classes=a", {}, "inputs"),
        ("?classes=a&colour=red", {"inputs": BASE64}, "colour"),
        ("?classes=a&outputs=png", {"inputs": BASE64}, "outputs"),
    ],
)  # fmt: skip
async def test_fields_that_cannot_be_used(query: str, body: dict[str, Any], field: str) -> None:
    async with running() as (client, _):
        answer = await client.post(URL + query, json=body)
    assert field in fields(problem(answer, 422))


@pytest.mark.anyio
async def test_bodies_that_cannot_be_used() -> None:
    async with running(max_bytes=5000, max_pixels=1000) as (client, service):
        problem(await client.post(f"{URL}?classes=a", content=b"no picture"), 415)
        problem(await client.post(f"{URL}?classes=a", content=b""), 400)
        problem(await client.post(f"{URL}?classes=a", content=b"x" * 5001), 413)
        problem(await client.post(f"{URL}?classes=a", content=encoded(picture(60, 60))), 413)
        broken = {"Content-Type": "application/json"}
        problem(await client.post(f"{URL}?classes=a", content=b"{", headers=broken), 400)
        assert service.memory.reserved == 0
