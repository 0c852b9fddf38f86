"""The index, configurations and statistics of models, and parameters of requests, by Triton's own client."""

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.service.fakes import PNG, FakeEngine, live, running
from tests.service.inference_protocol.inference_requests import CLASSES, IMAGE, body
from tests.service.inference_protocol.test_tritonclient import connected, given, inputs


def test_tritonclient_asks_what_there_is_and_what_it_did() -> None:
    with connected() as (client, _):
        assert client.get_model_repository_index() == [
            {"name": "fake", "version": "3", "state": "READY", "reason": ""}
        ]
        before = client.get_inference_statistics("fake", "3")["model_stats"]
        assert [one["inference_count"] for one in before] == [0]
        for _ in range(3):
            client.infer("fake", inputs())
        with pytest.raises(InferenceServerException):
            client.infer("fake", inputs(image=b"no picture"))
        for stats in (
            client.get_inference_statistics(),
            client.get_inference_statistics("fake"),
            client.get_inference_statistics("fake", "3"),
        ):
            (one,) = stats["model_stats"]
            assert (one["name"], one["version"], one["inference_count"]) == ("fake", "3", 3)
            assert 1 <= one["execution_count"] <= 3
            counts = {name: value["count"] for name, value in one["inference_stats"].items()}
            assert counts["success"] == counts["compute_output"] == counts["queue"] == 3
            assert counts["fail"] == 1
            assert one["inference_stats"]["compute_infer"]["ns"] > 0
        configured = client.get_model_config("fake")
        assert client.get_model_config("fake", "3") == configured
        assert configured["max_batch_size"] == 0
        assert configured["dynamic_batching"]["preferred_batch_size"] == [8]
        optional = {one["name"]: one["optional"] for one in configured["input"]}
        assert optional == {"image": False, "classes": True, "templates": True, "threshold": True}
        assert {"name": "label_map", "data_type": "TYPE_UINT16", "dims": [-1, -1]} in configured["output"]
        with pytest.raises(InferenceServerException, match="not loaded"):
            client.get_model_config("other")


def test_parameters_of_a_request() -> None:
    with connected() as (client, _):
        asked = {"vocabulary": "voc-20", "mean": "arithmetic", "long_side": 4}
        answer = client.infer("fake", [given("image", [PNG])], parameters=asked)
        with pytest.raises(InferenceServerException, match="either the input classes or"):
            client.infer("fake", inputs(), parameters={"vocabulary": "voc-20"})
        with pytest.raises(InferenceServerException, match="no vocabulary"):
            client.infer("fake", [given("image", [PNG])], parameters={"vocabulary": "nobody"})
        for wrong in (
            {"mean": "harmonic"},
            {"long_side": 0},
            {"long_side": "4"},
            {"vocabulary": 1},
            {"tile_size": 63},
            {"tile_overlap": 10},
            {"tile_overlap": 64, "tile_size": 64},
        ):
            with pytest.raises(InferenceServerException, match=next(iter(wrong))):
                client.infer("fake", inputs(), parameters=wrong)
    labels = answer.as_numpy("label_map")
    assert labels.shape == (3, 4)
    assert labels.max() > 10  # of twenty classes
    assert labels.dtype == np.uint16


def test_a_request_reaches_the_model_as_by_the_services_own_route() -> None:
    engine = FakeEngine()
    with live(engine) as (url, _):
        content, _header = body(IMAGE, CLASSES, parameters={"mean": "arithmetic", "long_side": 3})
        assert httpx.post(f"{url}/v2/models/fake/infer", content=content).status_code == 200
        form = {"classes": "sky,tree", "mean": "arithmetic", "output_size": "3"}
        assert httpx.post(f"{url}/v1/segment", files={"image": PNG}, data=form).status_code == 200
    first, second = engine.jobs
    assert first.balance == second.balance
    assert first.balance is not None
    assert first.output_size == second.output_size == (2, 3)


@pytest.mark.anyio
async def test_the_index_names_what_is_ready() -> None:
    async with running() as (client, _):
        for asked in ({}, {"ready": True}, {"ready": False}):
            assert len((await client.post("/v2/repository/index", json=asked)).json()) == 1
        for content, status in ((b"{", 400), (b'{"ready": 1}', 422), (b"x" * 2000, 413)):
            answer = await client.post("/v2/repository/index", content=content)
            assert answer.status_code == status, answer.text
            assert list(answer.json()) == ["error"]
