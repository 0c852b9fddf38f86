"""Requests with `tiling`, by a real model: answers, prices, company and what is refused."""

import asyncio
import io
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ebseg
from ebseg_client import EBSegClient, FieldsRefusedError, InputError
from ebseg_client import Tiling as ClientTiling
from model.storage.packaged import packaged_checkpoint
from model.tiling import TileLayout, Tiling
from service.batch.segmenter import BatchSegmenter
from service.local.model import load_local
from service.local.notebook import NotebookModel
from service.scheduling.host_memory import tile_bytes
from service.scheduling.torch_engine import load_engine
from service.segmentation.requested import read_request, requested_vocabulary
from tests.service.fakes import FakeEngine, encoded, fields, live, post, problem, running
from tests.service.fakes import picture as gradient
from training.storybook.classes import CLASSES
from training.storybook.scene import draw

NAMES = list(CLASSES[:8])
NPY = {"Accept": "application/x-npy"}


def scene(height: int, width: int) -> NDArray[np.uint8]:
    return draw(np.random.default_rng(3), "landscape", height=height, width=width, allowed=CLASSES).picture


def labels(answer: httpx.Response) -> NDArray[np.uint16]:
    assert answer.status_code == 200, answer.text
    found: NDArray[np.uint16] = np.load(io.BytesIO(answer.content))
    return found


@pytest.mark.anyio
async def test_a_tiled_answer_is_the_same_alone_in_company_and_here() -> None:
    pixels = scene(200, 280)
    document: dict[str, Any] = {"classes": NAMES, "background": None, "tiling": {"size": 160, "overlap": 40}}
    whole = {"classes": NAMES, "background": None}
    image = encoded(pixels)
    async with running(load=load_engine, checkpoint=packaged_checkpoint()) as (client, service):
        alone = labels(await post(client, document, image=image, headers=NPY))
        plain = labels(await post(client, whole, image=image, headers=NPY))
        answers = await asyncio.gather(
            *(post(client, chosen, image=image, headers=NPY) for chosen in (document, whole, document))
        )
        for answer, wanted in zip(answers, (alone, plain, alone), strict=True):
            assert np.array_equal(labels(answer), wanted)
        scored = await post(client, {**document, "outputs": ["scores", "rle"]}, image=image)
        by_protocol = {
            "inputs": [
                {"name": "image", "shape": [1], "datatype": "BYTES", "data": [b64encode(image).decode()]},
                {"name": "classes", "shape": [8], "datatype": "BYTES", "data": NAMES},
                {"name": "threshold", "shape": [1], "datatype": "FP32", "data": [0]},
            ],
            "parameters": {"tile_size": 160, "tile_overlap": 40},
        }
        answer = await client.post("/v2/models/ebseg-tiny/infer", json=by_protocol)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][0]["data"] == alone.ravel().tolist()
        one_tile = await post(client, {**whole, "tiling": {"size": 512}}, image=image, headers=NPY)
        assert np.array_equal(labels(one_tile), plain)
        assert service.admission.pending_seconds == 0
        assert service.memory.reserved == 0
    assert (alone != plain).any()
    spec = read_request(document)
    model = load_local(packaged_checkpoint(), device="cpu", dtype="float32")
    here = model.segment(pixels, spec, requested_vocabulary(spec), max_pixels=10**6)
    assert np.array_equal(here.labels, alone)
    notebook = NotebookModel(model, packaged_checkpoint())
    found = notebook.segment(pixels, NAMES, background=None, tiling=(160, 40))
    assert np.array_equal(found.label_map, alone)
    rows = [{"bytes": encoded(scene(150, 150))}, {"bytes": image}, {"bytes": encoded(scene(150, 150))}]
    before, tiled, after = BatchSegmenter(request=document, device="cpu", batch_size=2)(rows)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(tiled["label_map"]))), alone)
    assert sum(tiled["areas"]) == 200 * 280
    assert before["label_map"] == after["label_map"]  # in company, around it
    body = scored.json()
    assert body["caches"]["prediction"] == "miss"
    assert body["timings_ms"]["predict"] > 0
    assert sum(item["area"] for item in body["classes"]) == 200 * 280


@pytest.mark.anyio
async def test_other_requests_pass_between_tiles() -> None:
    engine = FakeEngine(seconds=0.02)
    engine.batch = 1
    async with running(engine) as (client, _):
        many = post(client, {"classes": ["a"], "tiling": {"size": 64}}, image=encoded(gradient(400, 400)))
        large = asyncio.create_task(many)
        while not engine.batches:
            await asyncio.sleep(0.001)
        answer = await post(client, {"classes": ["a"]})
        assert answer.status_code == 200
        assert not large.done()
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)


@pytest.mark.anyio
async def test_a_request_that_ends_takes_its_tiles_along() -> None:
    engine = FakeEngine(seconds=0.01)
    engine.batch = 1
    async with running(engine) as (client, service):
        document = {"classes": ["a"], "tiling": {"size": 64}, "timeout_ms": 150}
        answer = await post(client, document, image=encoded(gradient(600, 600)))
        problem(answer, 504)
        ran = len(engine.batches)
        assert service.scheduler.depth == 0
        await asyncio.sleep(0.1)
        assert len(engine.batches) <= ran + 1  # the one that was running
        assert service.memory.reserved == 0


@pytest.mark.anyio
async def test_the_price_is_that_of_all_tiles() -> None:
    layout = TileLayout((400, 600), (400, 600), Tiling.of(128))
    engine = FakeEngine()
    reserved: list[int] = []
    async with running(engine) as (client, service):
        reserve = service.admission._reserve

        def listening(ticket: Any, seconds: float, pixels: int, deadline: Any) -> None:
            reserved.append(pixels)
            reserve(ticket, seconds, pixels, deadline)

        service.admission._reserve = listening  # type: ignore[method-assign]
        document = {"classes": ["a"], "tiling": {"size": 128}}
        await post(client, document, image=encoded(gradient(400, 600)))
    assert layout.count == 4 * 6
    assert layout.count * 128 * 128 in reserved
    assert tile_bytes(24, 18, 128 * 128) == 128 * 128 * (3 * 24 + 32 * 18)


@pytest.mark.parametrize(
    ("tiling", "field"),
    [
        ({"size": 63}, "tiling.size"),
        ({"size": 100_000}, "tiling.size"),
        ({"size": 512, "overlap": 512}, "tiling"),
        ({"size": 512, "overlap": -1}, "tiling.overlap"),
        ({"size": "large"}, "tiling.size"),
        ({"overlap": 5}, "tiling.size"),
        ({"size": 64, "overlap": 63}, "tiling"),
        ({"size": 512, "more": 1}, "tiling.more"),
    ],
)
@pytest.mark.anyio
async def test_tilings_that_are_refused(tiling: dict[str, Any], field: str) -> None:
    async with running() as (client, _):
        answer = await post(client, {"classes": ["a"], "tiling": tiling}, image=encoded(gradient(200, 200)))
        assert field in fields(problem(answer, 422))


@pytest.mark.anyio
async def test_forms_and_queries_take_it_as_text() -> None:
    image = encoded(gradient(200, 300))
    engine = FakeEngine()
    async with running(engine) as (client, _):
        for given, status in (("128", 200), ("128,32", 200), ("128,128", 422), ("many", 422), ("12", 422)):
            form = {"classes": "sky", "tiling": given}
            engine.batches.clear()
            answer = await client.post("/v1/segment", files={"image": ("p.png", image)}, data=form)
            assert answer.status_code == status, answer.text
            query = {"classes": "sky", "tiling": given}
            raw = await client.post(
                "/v1/segment", params=query, content=image, headers={"content-type": "image/png"}
            )
            assert raw.status_code == status
            assert (sum(engine.batches) == 2 * 6) == (status == 200)


def test_client_and_command_line_speak_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = encoded(gradient(200, 300))
    (tmp_path / "a.png").write_bytes(image)
    engine = FakeEngine()
    with live(engine) as (url, _), EBSegClient(url) as client:
        found = client.segment(image, ["sky", "tree"], tiling=ClientTiling(128, 32))
        assert found.labels.shape == (200, 300)
        assert sum(engine.batches) == 2 * 3
        arguments = ["segment", str(tmp_path / "a.png"), "--classes", "sky,tree", "--url", url]
        assert ebseg.main([*arguments, "--tiling", "128,32"]) == 0
        assert sum(engine.batches) == 2 * (2 * 3)
        with pytest.raises(FieldsRefusedError, match="tiling"):
            client.segment(image, ["sky"], tiling=ClientTiling(128, 500))
        with pytest.raises(InputError, match="tiling is a Tiling"):
            client.segment(image, ["sky"], tiling=128)  # type: ignore[arg-type]
        assert ebseg.main([*arguments, "--tiling", "128,500"]) == 2
        assert "tiling" in capsys.readouterr().err
