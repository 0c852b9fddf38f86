"""Series with a model, a version and a device: only of versions in memory, whoever counts when."""

import threading
from dataclasses import replace

from prometheus_client.samples import Sample

from service.observability.metrics import Metrics
from tests.service.fakes import INFO
from tests.waiting import WAIT

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
