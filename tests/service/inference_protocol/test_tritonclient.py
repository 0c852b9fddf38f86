"""Triton's own client drives a real server."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from service.runtime import Service
from service.schemas.inference_protocol import EXTENSIONS
from tests.service.fakes import BASE64, PNG, FakeEngine, another, encoded, live, picture
from tests.waiting import WAIT, wait_until

KEY = "k" * 16


@pytest.fixture(autouse=True, scope="module")
def _no_gevent_left() -> Iterator[None]:
    """The client's event loop has a thread for host names; it ends with the hub."""
    yield
    gevent.get_hub().destroy(destroy_loop=True)


@contextmanager
def connected(
    engine: FakeEngine | None = None, *, concurrency: int = 1, network_timeout: float = WAIT, **values: Any
) -> Iterator[tuple[Any, Service]]:
    """A client of a server."""
    with live(engine, **values) as (url, service):
        client = triton.InferenceServerClient(
            url.removeprefix("http://"), concurrency=concurrency, network_timeout=network_timeout
        )
        with client:
            yield client, service


def given(name: str, values: Sequence[Any], dtype: Any = np.object_, *, binary: bool = True) -> Any:
    made = triton.InferInput(name, [len(values)], "FP32" if dtype is np.float32 else "BYTES")
    return made.set_data_from_numpy(np.array(values, dtype), binary_data=binary)


def inputs(names: Sequence[str] = ("sky", "tree"), image: bytes = PNG) -> list[Any]:
    return [given("image", [image]), given("classes", [name.encode() for name in names])]


def expected(width: int, classes: int) -> NDArray[np.uint16]:
    """What `FakeEngine` makes of `picture(6, width)`."""
    return (picture(6, width)[:, :, 0].astype(np.int64) * classes // 256 + 1).astype(np.uint16)


def message(caught: pytest.ExceptionInfo[InferenceServerException], status: int) -> str:
    assert caught.value.status() == str(status)
    reported = caught.value.message()
    assert isinstance(reported, str)
    return reported


def test_health_and_metadata() -> None:
    with connected() as (client, service):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("fake")
        assert client.is_model_ready("fake", "3")
        assert not client.is_model_ready("fake", "4")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["extensions"] == EXTENSIONS
        described = client.get_model_metadata("fake", "3")
        assert (described["name"], described["versions"]) == ("fake", ["3"])
        assert [output["name"] for output in described["outputs"]][:2] == ["label_map", "confidence"]
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata("other")
        assert "is not loaded" in message(caught, 404)
        service.begin_drain()
        assert not client.is_server_ready()
        assert not client.is_model_ready("fake")


def test_an_inference_as_the_client_does_it_by_default() -> None:
    with connected() as (client, _):
        result = client.infer("fake", inputs(), request_id="42")
        labels = result.as_numpy("label_map")
        assert (labels.dtype, labels.tolist()) == (np.uint16, expected(8, 2).tolist())
        response = result.get_response()
        assert (response["id"], response["model_name"], response["model_version"]) == ("42", "fake", "3")
        assert response["outputs"][0]["parameters"] == {"binary_data_size": 96}


@pytest.mark.parametrize("binary", [True, False])
def test_all_outputs(binary: bool) -> None:
    names = ("label_map", "confidence", "class_names", "trained")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    everything = [*inputs(["Bäume", "tree", "sky"]), given("threshold", [0.5], np.float32)]
    with connected() as (client, _):
        result = client.infer("fake", everything, model_version="3", outputs=outputs)
        confidence = result.as_numpy("confidence")
        labels = result.as_numpy("label_map")
        class_names = [
            name.decode() if isinstance(name, bytes) else name for name in result.as_numpy("class_names")
        ]
        trained = result.as_numpy("trained")
    assert (confidence.dtype, confidence.shape) == (np.float32, (6, 8))
    assert (confidence == picture()[:, :, 1] / np.float32(255)).all()
    assert (labels == np.where(confidence < 0.5, 0, expected(8, 3))).all()
    assert class_names == ["Bäume", "tree", "sky"]
    assert (trained.dtype, trained.tolist()) == (bool, [False, True, False])


def test_inputs_as_json_and_both_mixed() -> None:
    image = given("image", [BASE64], binary=False)
    classes = given("classes", ["sky", "tree"], binary=False)
    templates = given("templates", ["a {}.", "the {}."], binary=False)
    threshold = given("threshold", [0.0], np.float32, binary=False)
    with connected() as (client, _):
        for wanted in (
            [image, classes, templates, threshold],
            [inputs()[0], classes, templates],
            [templates, inputs()[1], image],
        ):
            labels = client.infer("fake", wanted).as_numpy("label_map")
            assert labels.tolist() == expected(8, 2).tolist()


def test_several_at_once_with_a_vocabulary_each() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    wishes = [(["sky", "tree", "road", "sea"][:count], width) for count in (1, 2, 3, 4) for width in (5, 8)]
    with connected(engine, concurrency=len(wishes)) as (client, service):
        gate.set()
        for names, width in wishes[::2]:  # the text tower knows them all: it would wait for the gate, too
            client.infer("fake", inputs(names, another(encoded(picture(6, width)))))
        gate.clear()
        engine.batches.clear()
        asked = [
            client.async_infer(
                "fake", inputs(names, another(encoded(picture(6, width)))), request_id=f"{len(names)} {width}"
            )
            for names, width in wishes
        ]

        def open_when_all_wait() -> None:
            try:
                wait_until(lambda: sum(engine.batches) + service.scheduler.depth == len(wishes))
            finally:
                gate.set()

        opener = threading.Thread(target=open_when_all_wait)
        opener.start()
        results = [one.get_result(timeout=WAIT) for one in asked]
        opener.join()
    for (names, width), result in zip(wishes, results, strict=True):
        assert result.get_response()["id"] == f"{len(names)} {width}"
        assert result.as_numpy("label_map").tolist() == expected(width, len(names)).tolist()
    assert sum(engine.batches) == len(wishes)
    assert len(engine.batches) < len(wishes)  # equal shapes shared batches
    assert service.admission.pending == 0


def test_errors_arrive_with_their_words() -> None:
    with connected() as (client, service):
        for wanted, status, reported in (
            (inputs()[:1], 400, "inputs: classes must be there"),
            ([*inputs(), given("color", [b"red"])], 400, "there is no input 'color'"),
            (inputs(image=b"no picture"), 415, "JPEG"),
            (inputs(image=b""), 400, "empty"),
            (inputs(["sky", ""]), 422, "classes.1"),
            ([*inputs(), given("threshold", [1.5], np.float32)], 422, "threshold: must be between 0 and 1"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fake", wanted)
            assert reported in message(caught, status)
        with pytest.raises(InferenceServerException) as caught:
            client.async_infer("fake", inputs(), model_version="4").get_result(timeout=WAIT)
        assert message(caught, 404) == "this version of fake is not loaded; loaded: 3"
        with pytest.raises(InferenceServerException) as caught:
            client.infer("fake", inputs(), outputs=[triton.InferRequestedOutput("masks")])
        assert "there is no output 'masks'" in message(caught, 400)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("fake", inputs(), priority=1)
        assert "parameters.priority: unknown field" in message(caught, 400)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("fake", inputs(), request_compression_algorithm="gzip")
        assert "Content-Encoding" in message(caught, 415)
        with pytest.raises(InferenceServerException) as caught:
            client.get_trace_settings("fake")
        assert message(caught, 404) == (
            "there is nothing at this path; /openapi.json lists all paths; did you mean /v2/models/stats?"
        )
        assert service.admission.pending == 0


def test_a_timeout_in_microseconds() -> None:
    gate = threading.Event()
    with connected(FakeEngine(gate=gate)) as (client, _):
        try:
            with pytest.raises(InferenceServerException) as caught:
                client.infer("fake", inputs(), timeout=500_000)
            assert "no response within 0.5 s" in message(caught, 504)
        finally:
            gate.set()


def test_a_client_that_gives_up_frees_its_place() -> None:
    gate = threading.Event()
    with connected(FakeEngine(gate=gate), network_timeout=0.1) as (client, service):
        try:
            with pytest.raises(TimeoutError):
                client.infer("fake", inputs())
            gone = service.metrics.rejected.labels("client-gone")
            wait_until(lambda: gone._value.get() and not service.admission.pending)
        finally:
            gate.set()


def test_a_key() -> None:
    with connected(api_keys=KEY) as (client, _):
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException) as caught:
            client.infer("fake", inputs())
        assert "this needs a key" in message(caught, 401)
        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata("fake", headers={"X-API-Key": "x" * 16})
        assert message(caught, 401) == "this key is unknown"
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert client.infer("fake", inputs(), headers=headers).as_numpy("label_map").shape == (6, 8)
