"""Series with a model, a version and a device: only of versions in memory, whoever counts when."""

import threading
from dataclasses import replace

import httpx
import pytest
from prometheus_client.samples import Sample

from service.app import create_app
from service.observability.metrics import Metrics
from tests.service.fakes import INFO, FakeEngine, post, settings
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio
DEVICES = ["cuda:0", "cuda:1"]
VERSIONS = 60


def samples(metrics: Metrics, **labels: str) -> list[Sample]:
    """Samples that have these labels, but for the times when series were made."""
    every = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    return [sample for sample in every if labels.items() <= sample.labels.items()]


def test_a_version_has_its_series_before_its_first_event() -> None:
    metrics = Metrics()
    metrics.version_came(INFO, DEVICES)
    for device in DEVICES:
        found = {sample.name for sample in samples(metrics, model="fake", version="3", device=device)}
        assert {
            "ebseg_batches_total",
            "ebseg_batch_size_count",
            "ebseg_stage_duration_seconds_count",
        } <= found
    metrics.version_came(INFO, DEVICES)  # a canary that takes over
    metrics.batch(INFO, "cuda:1", "full", 8)
    (count,) = [one for one in samples(metrics, device="cuda:1", trigger="full") if one.value]
    assert (count.name, count.value) == ("ebseg_batches_total", 1.0)
    (size,) = [one for one in samples(metrics, device="cuda:1") if one.name == "ebseg_batch_size_sum"]
    assert size.value == 8


async def test_whatever_devices_do_is_told_by_model_version_and_device() -> None:
    """Every metric of them, of requests and of stages; in sets that are as large as what is loaded."""
    per_version = {"batch_size", "batches", "step_duration_seconds", "stage_duration_seconds"}
    per_version |= {"device_memory_bytes", "requests", "request_duration_seconds"}
    info = replace(INFO, weight_bytes=1000)
    engines = [FakeEngine(replace(info, device=device)) for device in DEVICES]
    app = create_app(settings(), *engines)
    service = app.state.service
    async with app.router.lifespan_context(app):
        await until(lambda: service.state == "ready")
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for number in range(4):
                assert (await post(client, {"classes": [f"a {number}", "b"]})).status_code == 200
        found = {metric.name.removeprefix("ebseg_"): metric for metric in service.metrics.registry.collect()}
    of_devices = {
        name for name, metric in found.items() if any("device" in sample.labels for sample in metric.samples)
    }
    assert of_devices == per_version - {"requests", "request_duration_seconds"}
    for name in per_version:
        samples_of = found[name].samples
        assert samples_of
        for sample in samples_of:
            assert {"model", "version"} <= sample.labels.keys()
            assert (sample.labels["model"], sample.labels["version"]) in {("fake", "3"), ("", "")}
            assert sample.labels.get("device", "") in {*DEVICES, "cpu", ""}
    worked = {"batch_size": 4, "step_duration_seconds": 12}  # embed, predict and classify of each
    for name, count in worked.items():
        own = [one for one in found[name].samples if one.name.endswith("_count")]
        assert sum(one.value for one in own) == count
        assert all(one.labels["model"] == "fake" and one.labels["device"] for one in own)
    weights = [one for one in found["device_memory_bytes"].samples if one.labels["kind"] == "weights"]
    assert {one.labels["device"]: one.value for one in weights} == dict.fromkeys(DEVICES, 1000)
    assert {(one.labels["model"], one.labels["version"]) for one in weights} == {("fake", "3")}


def test_a_version_that_is_not_loaded_gets_no_series() -> None:
    metrics = Metrics()
    other = replace(INFO, name="a-name-that-somebody-sent")
    metrics.version_came(INFO, DEVICES)
    before = len(samples(metrics))
    metrics.step(other, "cuda:0", "predict", 1.0)
    metrics.batch(other, "cuda:0", "idle", 1)
    metrics.stages({"decode": 1.0}, {}, other)
    assert len(samples(metrics)) == before
    metrics.request("/v1/segment", 404, 1.0, other)
    assert samples(metrics, model=other.name) == []
    (count,) = samples(metrics, model="", version="", code="404")
    assert count.value == 1


def test_a_version_may_go_while_threads_count_for_it() -> None:
    metrics = Metrics()
    versions = [replace(INFO, version=number) for number in range(1, VERSIONS + 1)]
    errors: list[BaseException] = []
    stop = threading.Event()

    def count() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                metrics.step(versions[number % VERSIONS], f"cuda:{number % 7}", "predict", 1.0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=count) for _ in range(2)]
    for version in versions:
        metrics.version_came(version, DEVICES)
    for thread in threads:
        thread.start()
    for version in versions:
        metrics.version_gone(version)
    stop.set()
    for thread in threads:
        thread.join(WAIT)
    assert errors == []
    assert samples(metrics, model="fake") == []


def test_memory_of_a_versions_weights_goes_with_it() -> None:
    metrics = Metrics()
    metrics.memory(5000, "process_rss", "cpu")
    versions = [replace(INFO, version=number) for number in (1, 2)]
    for version in versions:
        metrics.version_came(version, DEVICES, 1000)
    weights = samples(metrics, kind="weights")
    assert sum(one.value for one in weights) == 4000
    metrics.version_gone(versions[0])
    assert {one.labels["version"] for one in samples(metrics, kind="weights")} == {"2"}
    (rest,) = samples(metrics, kind="process_rss")
    assert (rest.value, rest.labels["model"]) == (5000, "")
