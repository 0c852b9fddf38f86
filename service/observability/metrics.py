"""Prometheus metrics of one app, on a registry of their own. No label holds a user's text.

Times are in seconds, sizes in bytes unless a name says otherwise; the tuples are upper bounds of buckets.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# seconds, of requests and of stages: 5 ms to 30 s
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
# millions of pixels, up to the default of max_pixels
MEGAPIXELS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 50.0)
# classes of a request, up to MAX_CLASSES
CLASSES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1024.0)
# pictures of a batch
PICTURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# seconds of a lookup: 0.1 ms, in the process, to 1 s
CACHE_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0)
# seconds until a version serves: 0.3 s to 5 min
LOAD_SECONDS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
TRIGGERS = ("full", "delay", "idle", "cached", "bisect", "memory")
LOAD_RESULTS = ("loaded", "quarantined", "failed", "rolled_back")
ENDED = (
    "headers-too-large", "headers-too-slow", "body-too-large", "body-too-slow", "answer-too-slow", "idle",
    "made-room", "full", "address-full", "pipelined", "malformed",
)  # fmt: skip
STAGES = ("decode_wait", "decode", "text", "queue", "predict", "classify", "encode_wait", "encode")


class Metrics:
    """All metrics; `ebseg_` goes before each name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._labelled: dict[tuple[Any, ...], Any] = {}
        self.requests = self._counter("requests", "Requests answered", "route", "code")
        self.request_seconds = self._seconds(
            "request_duration_seconds", "Time from a request's headers to the end of its answer", "route"
        )
        self.key_requests = self._counter("key_requests", "Requests of each API key", "key", "code")
        self.stage_seconds = self._seconds(
            "stage_duration_seconds", "Time of a segmentation's stages", "stage", "model", "version"
        )
        self.connections = self._gauge("connections", "Open connections")
        self.connections_ended = self._counter(
            "connections_ended",
            "Connections and bodies that were ended, by what they exceeded",
            "reason",
        )
        self.inflight = self._gauge("inflight", "Segmentations under way")
        self.queue_depth = self._gauge("queue_depth", "Segmentations that wait", "queue")
        self.queue_oldest_age = self._gauge(
            "queue_oldest_age_seconds", "How long the oldest segmentation has waited", "queue"
        )
        self.batch_size = self._histogram("batch_size", "Pictures of a batch", PICTURES)
        self.batches = self._counter("batches", "Batches by what made them go", "trigger")
        self.step_seconds = self._seconds(
            "step_duration_seconds", "Time of a device's steps", "step", "model", "version", "device"
        )
        self.host_bytes = self._gauge(
            "host_bytes", "Host memory that requests under way have reserved, and may reserve", "kind"
        )
        self.rejected = self._counter("rejected", "Requests refused", "reason")
        self.megapixels = self._histogram("image_megapixels", "Size of pictures", MEGAPIXELS)
        self.vocabulary_size = self._histogram("vocabulary_size", "Classes of a request", CLASSES)
        self.cache_ops = self._counter(
            "cache_ops", "Lookups and changes of the caches", "cache", "tier", "result"
        )
        self.cache_seconds = self._histogram(
            "cache_duration_seconds", "Time of a cache lookup", CACHE_SECONDS, "cache", "tier"
        )
        self.breaker_state = self._gauge(
            "redis_breaker_state", "Circuit breaker of Redis: 0 closed, 1 half-open, 2 open"
        )
        self.model_info = self._gauge("model_info", "The loaded models", "model", "version", "digest")
        self.model_loads = self._counter("model_loads", "Attempts to load a version", "result")
        self.model_load_seconds = self._histogram(
            "model_load_duration_seconds", "Time from finding a version to serving it", LOAD_SECONDS
        )
        self.device_memory = self._gauge("device_memory_bytes", "Memory in use", "kind")
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "How late the event loop ran its timers, at worst in the last 15 s"
        )
        self.last_success = self._gauge(
            "last_success_timestamp_seconds", "When a segmentation was last answered, Unix time"
        )
        # a dashboard finds these before the first request
        for trigger in TRIGGERS:
            self.batches.labels(trigger)
        for reason in ENDED:
            self.connections_ended.labels(reason)
        for result in LOAD_RESULTS:
            self.model_loads.labels(result)
        self.rejected.labels("out-of-memory")  # an alert compares with what was before the first one

    def watch(
        self,
        *,
        inflight: Callable[[], float],
        depths: Mapping[str, Callable[[], float]],
        oldest_ages: Mapping[str, Callable[[], float]],
    ) -> None:
        """Reads gauges from where the numbers are: counts of requests, and ages in seconds, by queue."""
        self.inflight.set_function(inflight)
        for queue, depth in depths.items():
            self.queue_depth.labels(queue).set_function(depth)
        for queue, oldest_age in oldest_ages.items():
            self.queue_oldest_age.labels(queue).set_function(oldest_age)

    def count(self, counter: Counter, *labels: str, by: float = 1) -> None:
        """Counts under labels; they are remembered, since to find them takes longer than to count."""
        self._with(counter, labels).inc(by)

    def observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        """Observes a value, in the unit of the histogram's buckets, under labels, as `count` does."""
        self._with(histogram, labels).observe(seconds)

    def stages(self, seconds: Mapping[str, float], model: str, version: int) -> None:
        """Observes the time of stages, seconds by name of `STAGES`, of a version."""
        for stage, value in seconds.items():
            self.observe(self.stage_seconds, value, stage, model, str(version))

    def version_came(self, model: str, version: int) -> None:
        """Makes a version's series, for a dashboard to find before its first request."""
        for stage in STAGES:
            self._with(self.stage_seconds, (stage, model, str(version)))

    def version_gone(self, model: str, version: int) -> None:
        """Removes the series of a version that is freed, so that those of loaded ones are all there are."""
        own = {"model": model, "version": str(version)}
        for metric in (self.stage_seconds, self.step_seconds):
            metric.remove_by_labels(own)
        for key in [key for key in self._labelled if (model, str(version)) == key[2:4]]:
            del self._labelled[key]

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _with(self, metric: Counter | Histogram, labels: tuple[str, ...]) -> Any:
        key = (metric, *labels)
        found = self._labelled.get(key)
        if found is None:
            found = self._labelled[key] = metric.labels(*labels)
        return found

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"ebseg_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"ebseg_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, *labels: str) -> Histogram:
        return self._histogram(name, text, SECONDS, *labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"ebseg_{name}", text, labels, buckets=buckets, registry=self.registry)
