"""What workers count, in the metrics of the engine's process."""

from service.observability.metrics import Metrics
from service.workers.relay import RelayedMetrics, VersionNumber, apply

VERSION = VersionNumber("model", 3)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ebseg_{name}", labels)


def test_events_are_counted_where_the_version_is_known() -> None:
    metrics, worker = Metrics(), RelayedMetrics()
    metrics.version_came(VERSION, ["cpu"])
    worker.request("/v1/segment", 200, 0.25, VERSION)
    worker.request("/v1/segment", 429, 0.5, None)
    worker.request("/v1/segment", 200, 0.25, VersionNumber("model", 2))  # freed meanwhile
    worker.stages({"decode": 0.125, "predict": 2.0}, {"predict": "cpu"}, VERSION)
    worker.count(worker.rejected, "queue-full")
    worker.observe(worker.megapixels, 1.5)
    worker.succeeded()
    assert value(worker, "image_megapixels_count") == 0  # a worker counts nothing itself
    apply(metrics, worker.taken(), "1")
    assert worker.taken() == []
    own = {"model": "model", "version": "3"}
    assert value(metrics, "requests_total", route="/v1/segment", code="200", **own) == 1
    assert value(metrics, "requests_total", route="/v1/segment", code="429", model="", version="") == 1
    assert value(metrics, "stage_duration_seconds_sum", stage="decode", device="", **own) == 0.125
    assert value(metrics, "stage_duration_seconds_sum", stage="predict", device="cpu", **own) == 2
    assert value(metrics, "rejected_total", reason="queue-full") == 1
    assert value(metrics, "image_megapixels_sum") == 1.5
    assert (value(metrics, "last_success_timestamp_seconds") or 0) > 1.7e9


def test_gauges_are_sums_or_the_worst_of_all_processes() -> None:
    metrics = Metrics()
    metrics.watch(
        inflight=lambda: 0,
        expected_work=lambda: 0,
        depths={"decode": lambda: 1},
        oldest_ages={"decode": lambda: 2.5},
    )
    metrics.set_part(metrics.event_loop_lag, 0.25)
    for process, (connections, lag) in enumerate([(3, 0.125), (4, 0.5)], 1):
        worker = RelayedMetrics()
        for _ in range(3):  # told once
            worker.sample(worker.connections, connections)
            worker.sample(worker.event_loop_lag, lag)
            worker.sample(worker.queue_depth, 2, "decode")
            worker.sample(worker.queue_oldest_age, connections, "decode")
        events = worker.taken()
        assert len(events) == 4
        apply(metrics, events, str(process))
    assert value(metrics, "connections") == 7
    assert value(metrics, "event_loop_lag_seconds") == 0.5
    assert value(metrics, "queue_depth", queue="decode") == 5
    assert value(metrics, "queue_oldest_age_seconds", queue="decode") == 4
    metrics.drop_parts("2")
    assert value(metrics, "connections") == 3
    assert value(metrics, "event_loop_lag_seconds") == 0.25
    assert value(metrics, "queue_depth", queue="decode") == 3
    assert value(metrics, "queue_oldest_age_seconds", queue="decode") == 3
