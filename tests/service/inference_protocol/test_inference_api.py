"""The Open Inference Protocol's routes, in this process."""

import asyncio
import base64
import dataclasses
import json
import threading
from typing import Any

import httpx
import numpy as np
import pytest

from model.confidence.caution import untrained
from model.errors import CheckpointError
from service.scheduling.engine import Engine
from service.schemas.inference_protocol import EXTENSIONS
from tests.service.fakes import INFO, PNG, FakeEngine, encoded, picture, running
from tests.service.inference_protocol.inference_requests import (
    BINARY_CLASSES,
    BINARY_IMAGE,
    CLASSES,
    IMAGE,
    body,
    tensor,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio

INFER = "/v2/models/fake/infer"
KEY = "k" * 16


async def infer(client: httpx.AsyncClient, *inputs: Any, path: str = INFER, **fields: Any) -> httpx.Response:
    content, header = body(*inputs, **fields)
    headers = {} if header is None else {"Inference-Header-Content-Length": header}
    return await client.post(path, content=content, headers=headers)


def error(answer: httpx.Response, status: int) -> str:
    """The answer's error, after a look at everything that all of them have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]
    document = answer.json()
    assert list(document) == ["error"]
    assert "Traceback" not in document["error"]
    assert isinstance(document["error"], str)
    return document["error"]


async def test_what_server_and_model_say_of_themselves() -> None:
    async with running() as (client, _):
        server = (await client.get("/v2")).json()
        assert (server["name"], server["extensions"]) == ("ebseg", EXTENSIONS)
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        for path in ("/v2/models/fake", "/v2/models/fake/versions/3"):
            described = (await client.get(path)).json()
            assert (await client.get(f"{path}/ready")).json() == {"name": "fake", "ready": True}
            assert described.pop("inputs") == [
                {"name": "image", "datatype": "BYTES", "shape": [1]},
                {"name": "classes", "datatype": "BYTES", "shape": [-1]},
                {"name": "templates", "datatype": "BYTES", "shape": [-1]},
                {"name": "threshold", "datatype": "FP32", "shape": [1]},
            ]
            assert described.pop("outputs") == [
                {"name": "label_map", "datatype": "UINT16", "shape": [-1, -1]},
                {"name": "confidence", "datatype": "FP32", "shape": [-1, -1]},
                {"name": "class_names", "datatype": "BYTES", "shape": [-1]},
                {"name": "trained", "datatype": "BOOL", "shape": [-1]},
            ]
            assert described == {"name": "fake", "versions": ["3"], "platform": "pytorch_safetensors"}


@pytest.mark.parametrize("tail", ["", "/ready"])
async def test_models_and_versions_that_are_not_here(tail: str) -> None:
    async with running() as (client, _):
        assert "not loaded" in error(await client.get(f"/v2/models/other{tail}"), 404)
        for version in ("4", "0", "-3", "03", "3.0", "three", "٣", "9" * 30):
            reported = error(await client.get(f"/v2/models/fake/versions/{version}{tail}"), 404)
            assert reported == "this version of fake is not loaded; loaded: 3"


async def test_an_inference_from_json_to_json() -> None:
    async with running() as (client, service):
        answer = await infer(client, IMAGE, CLASSES, tensor("threshold", [0.5]), id="42")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-ebseg-model"] == "fake/3"
        assert "predict;dur=" in answer.headers["server-timing"]
        document = answer.json()
        (output,) = document.pop("outputs")
        assert document.pop("parameters") == {"threshold": 0.5, "threshold_source": "request"}
        assert document == {"model_name": "fake", "model_version": "3", "id": "42"}
        labels = np.reshape(output["data"], output["shape"])
        assert labels[:3].max() == 0
        assert (labels[3:] == [1, 1, 1, 1, 2, 2, 2, 2]).all()
        series = ("fake", "3", "/v2/models/{model}/infer", "200")
        assert service.metrics.requests.labels(*series)._value.get() == 1
        assert service.admission.pending == 0


async def test_an_answer_is_the_one_of_the_services_own_route() -> None:
    async with running() as (client, _):
        own = await client.post(
            "/v1/segment",
            files={"image": PNG},
            data={"classes": "sky,tree", "background": "0.3"},
            headers={"Accept": "application/x-npy"},
        )
        path = "/v2/models/fake/versions/3/infer"
        threshold = tensor("threshold", [0.3])
        outputs = [{"name": "label_map", "parameters": {"binary_data": True}}]
        answer = await infer(client, BINARY_IMAGE, BINARY_CLASSES, threshold, path=path, outputs=outputs)
        length = int(answer.headers["inference-header-content-length"])
        assert answer.headers["content-type"] == "application/octet-stream"
        assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [6, 8]
        assert answer.content[length:] == own.content[-6 * 8 * 2 :]


async def test_errors_have_the_protocols_form() -> None:
    async with running(max_bytes=5000, max_classes=3, max_pixels=50) as (client, service):
        assert error(await client.post(INFER, content=b"{"), 400).startswith("the document is no JSON")
        assert error(await infer(client, IMAGE), 400) == "inputs: classes must be there"
        broken = tensor("image", [""])
        assert error(await infer(client, broken, CLASSES), 400)
        doubled = tensor("classes", ["sky", "tree", "Sky"])
        assert error(await infer(client, IMAGE, doubled), 422).startswith("classes.2: ")
        many = tensor("classes", ["a", "b", "c", "d"])
        reported = error(await infer(client, IMAGE, many), 422)
        assert reported == "classes: 4 classes are too many; at most 3 are taken (setting max_classes)"
        assert error(await infer(client, IMAGE, tensor("classes", [])), 422)
        large = tensor("image", [base64.b64encode(encoded(picture(8, 8))).decode()])
        assert "50" in error(await infer(client, large, CLASSES), 413)
        assert "5000 bytes" in error(await client.post(INFER, content=b" " * 5001), 413)
        zipped = await client.post(INFER, content=b"x", headers={"Content-Encoding": "gzip"})
        assert "without a Content-Encoding" in error(zipped, 415)
        length = ("Inference-Header-Content-Length", "1")
        assert "is there twice" in error(
            await client.post(INFER, content=b"{}", headers=[length, length]), 400
        )
        other = await infer(client, IMAGE, CLASSES, path="/v2/models/other/infer")
        assert "not loaded" in error(other, 404)
        old = await infer(client, IMAGE, CLASSES, path="/v2/models/fake/versions/2/infer")
        assert "loaded: 3" in error(old, 404)
        for path in ("/v2/", "/v2/models", "/v2/models/other/config", "/v2/models/fake/versions/2/stats"):
            error(await client.get(path), 404)
        error(await client.get(INFER), 405)
        assert service.admission.pending == 0


async def test_a_fault_of_ours_says_nothing_of_its_inside() -> None:
    engine = FakeEngine(error=RuntimeError("secret"))
    async with running(engine) as (client, _):
        black = base64.b64encode(encoded(np.zeros((4, 4, 3), np.uint8))).decode()
        assert "secret" not in error(await infer(client, tensor("image", [black]), CLASSES), 500)


async def test_time_runs_out() -> None:
    gate = threading.Event()
    async with running(FakeEngine(gate=gate)) as (client, _):
        try:
            late = await infer(client, IMAGE, CLASSES, parameters={"timeout": 500_000})
        finally:
            gate.set()
        assert "no response within 0.5 s" in error(late, 504)


async def test_more_time_than_there_is_is_lowered() -> None:
    async with running(max_timeout_ms=40_000) as (client, _):
        more = await infer(client, IMAGE, CLASSES, parameters={"timeout": 10**9})
        exact = await infer(client, IMAGE, CLASSES, parameters={"timeout": 40_000_000})
    assert (more.status_code, exact.status_code) == (200, 200)
    assert more.headers["x-ebseg-warnings"] == "lowered-timeout"
    assert more.json()["parameters"]["warnings"].startswith("timeout_ms was 1000000, and this service gives")
    assert "x-ebseg-warnings" not in exact.headers
    assert "warnings" not in exact.json()["parameters"]


async def test_a_full_queue() -> None:
    gate = threading.Event()
    async with running(FakeEngine(gate=gate), max_pending=1) as (client, service):
        first = asyncio.create_task(infer(client, IMAGE, CLASSES))
        try:
            await until(lambda: service.admission.pending == 1)
            refused = await infer(client, IMAGE, CLASSES)
            assert int(refused.headers["retry-after"]) >= 1
            assert "queue is full" in error(refused, 429)
        finally:
            gate.set()
        assert (await first).status_code == 200


async def test_keys_open_everything_but_health() -> None:
    async with running(api_keys=KEY) as (client, _):
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 200
        for path in ("/v2", "/v2/models/fake", "/v2/models/fake/ready"):
            refused = await client.get(path)
            assert "X-API-Key" in error(refused, 401)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert (await client.get(path, headers={"X-API-Key": KEY})).status_code == 200
        error(await infer(client, IMAGE, CLASSES), 401)
        client.headers["Authorization"] = f"Bearer {KEY}"
        assert (await infer(client, IMAGE, CLASSES)).status_code == 200


async def test_not_ready_yet_and_not_any_more() -> None:
    gate = threading.Event()

    def load(*args: Any, **options: Any) -> Engine:
        assert gate.wait(WAIT)
        raise CheckpointError("broken")

    async with running(load=load, ready=False, device="cpu") as (client, service):
        try:
            for path in ("/v2/health/ready", "/v2/models/fake", "/v2/models/fake/ready"):
                assert "loading" in error(await client.get(path), 503)
            assert "loading" in error(await infer(client, IMAGE, CLASSES), 503)
            assert (await client.get("/v2/health/live")).status_code == 200
        finally:
            gate.set()
        await until(lambda: service.state == "failed")
        assert "could not be loaded" in error(await client.get("/v2/health/live"), 503)
    async with running() as (client, service):
        service.begin_drain()
        assert "shutting down" in error(await client.get("/v2/models/fake/ready"), 503)
        assert "shutting down" in error(await infer(client, IMAGE, CLASSES), 503)
        assert (await client.get("/v2/models/fake")).status_code == 200


async def test_an_untrained_model_says_so() -> None:
    async with running(FakeEngine(dataclasses.replace(INFO, untrained=True))) as (client, _):
        answer = await infer(client, IMAGE, CLASSES)
        assert answer.headers["x-ebseg-untrained"] == "true"
        assert answer.json()["parameters"] == {
            "threshold": 0.0,
            "threshold_source": "uncalibrated",
            "untrained": True,
            "warnings": untrained("fake").message,
        }


async def test_maps_too_large_for_json_never_reach_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.inference_protocol.answer.MOST_JSON_NUMBERS", 47)
    engine = FakeEngine()
    async with running(engine) as (client, _):
        assert "label_map of 6 x 8 are more than 47" in error(await infer(client, IMAGE, CLASSES), 422)
        assert engine.batches == []
        answer = await infer(client, IMAGE, CLASSES, parameters={"binary_data_output": True})
        assert answer.status_code == 200


async def test_the_documentation_has_the_routes() -> None:
    async with running() as (client, _):
        document = (await client.get("/openapi.json")).json()
    paths = {path: operations for path, operations in document["paths"].items() if path.startswith("/v2")}
    assert len(paths) == 15
    for operations in paths.values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
    post = paths["/v2/models/{model}/versions/{version}/infer"]["post"]
    assert [parameter["name"] for parameter in post["parameters"]] == [
        "model",
        "version",
        "Inference-Header-Content-Length",
    ]
    assert {"InferenceRequest", "InferenceAnswer", "RequestInput"} <= document["components"]["schemas"].keys()
    (example,) = document["components"]["schemas"]["InferenceRequest"]["examples"]
    async with running() as (client, _):
        answer = await client.post(INFER, json=example)
    assert answer.status_code == 200, answer.text
    assert [output["shape"] for output in answer.json()["outputs"]] == [[1, 1], [2]]
