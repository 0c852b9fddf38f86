"""Prometheus metrics of one app, on a registry of their own. No label holds a user's text.

Times are in seconds, sizes in bytes unless a name says otherwise; the tuples are upper bounds of buckets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from service.observability.processes import ServiceProcesses
from service.observability.version_series import LABELS, NOBODY, VersionSeries

# seconds, of requests and of stages: 5 ms to 30 s
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
# millions of pixels, up to the default of max_pixels
MEGAPIXELS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 50.0)
# classes of a request, up to MAX_CLASSES
CLASSES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1024.0, 4096.0)
# pictures of a batch
PICTURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# seconds of a lookup: 0.1 ms, in the process, to 1 s
CACHE_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0)
# seconds until a version serves: 0.3 s to 5 min
LOAD_SECONDS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
TRIGGERS = ("full", "delay", "idle", "cached", "bisect", "memory")
LOAD_RESULTS = ("loaded", "quarantined", "failed", "no_space", "rolled_back")
ENDED = (
    "headers-too-large", "headers-too-slow", "body-too-large", "body-too-slow", "answer-too-slow", "idle",
    "made-room", "full", "address-full", "pipelined", "malformed",
)  # fmt: skip
STAGES = ("fetch", "decode_wait", "decode", "text", "queue", "predict", "classify", "encode_wait", "encode")
DEVICE_STAGES = ("predict", "classify")  # that one device works on
WEIGHTS = "weights"  # the kind of memory that versions have on a device


class Version(Protocol):
    """What is loaded."""

    @property
    def name(self) -> str:
        """Of the model."""

    @property
    def version(self) -> int:
        """Its number."""


class Metrics:
    """All metrics; `ebseg_` goes before each name, and the process's own are with them."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more of each, that nobody reads
        self.registry = CollectorRegistry()
        self.processes = ServiceProcesses()
        self.registry.register(self.processes)
        self._labelled: dict[tuple[Any, ...], Any] = {}
        self._parts: dict[tuple[Any, ...], dict[str, float]] = {}  # of gauges, by process
        self.requests = self._counter("requests", "Requests answered", *LABELS, "route", "code")
        self.request_seconds = self._seconds(
            "request_duration_seconds",
            "Time from a request's headers to the end of its response",
            *(*LABELS, "route"),
        )
        self.key_requests = self._counter("key_requests", "Requests of each API key", "key", "code")
        self.stage_seconds = self._seconds(
            "stage_duration_seconds", "Time of a segmentation's stages", *LABELS, "stage", "device"
        )
        self.connections = self._gauge("connections", "Open connections")
        self.connections_ended = self._counter(
            "connections_ended",
            "Connections and bodies that were ended, by what they exceeded",
            "reason",
        )
        self.inflight = self._gauge("inflight", "Segmentations under way")
        self.expected_work = self._gauge(
            "expected_work_seconds", "Seconds that the devices are expected to need for all that is under way"
        )
        self.queue_depth = self._gauge("queue_depth", "Segmentations that wait", "queue")
        self.queue_oldest_age = self._gauge(
            "queue_oldest_age_seconds", "How long the oldest segmentation has waited", "queue"
        )
        self.batch_size = self._histogram("batch_size", "Images of a batch", PICTURES, *LABELS, "device")
        self.batches = self._counter("batches", "Batches by what made them go", *LABELS, "trigger", "device")
        self.step_seconds = self._seconds(
            "step_duration_seconds", "Time of a device's steps", *LABELS, "step", "device"
        )
        self.host_bytes = self._gauge(
            "host_bytes",
            "Host memory that requests and bodies on their way have reserved, and may reserve",
            "kind",
        )
        self.rejected = self._counter("rejected", "Requests refused", "reason")
        self.megapixels = self._histogram("image_megapixels", "Size of images", MEGAPIXELS)
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
        self.model_loads = self._counter("model_loads", "Attempts to load a version", "model", "result")
        self.model_load_failing = self._gauge(
            "model_load_failing", "Whether registry or load failed when last tried", "model", "result"
        )
        self.registry_up = self._gauge(
            "registry_up", "Whether the registry answered when it was last looked at", "model"
        )
        self.serving_revision = self._gauge(
            "serving_revision", "Revision of serving.json that is followed; 0 without one", "model"
        )
        self.serving_obeyed = self._gauge(
            "serving_obeyed", "Whether the versions that serve are those that are asked for", "model"
        )
        self.model_unfinished = self._gauge(
            "model_unfinished_versions", "Versions in the registry of which not everything is there", "model"
        )
        self.model_refused = self._gauge(
            "model_refused_versions",
            "Versions as new as the one loaded last, or newer, that are refused",
            "model",
        )
        self.announcements = self._counter(
            "announcements", "News of the registry by Redis: sent, lost on the way to it, heard", "result"
        )
        self.announcements_heard = self._gauge(
            "announcements_heard", "Whether this process hears of news by Redis; 0 without one"
        )
        self.model_load_seconds = self._histogram(
            "model_load_duration_seconds", "Time from finding a version to serving it", LOAD_SECONDS
        )
        self.device_memory = self._gauge(
            "device_memory_bytes",
            "Memory in use: in all, and weights of each version among that",
            *(*LABELS, "kind", "device"),
        )
        self.event_loop_lag = self._gauge(
            "event_loop_lag_seconds", "How late the event loop ran its timers, at worst in the last 15 s"
        )
        self.last_success = self._gauge(
            "last_success_timestamp_seconds", "When a segmentation was last answered, Unix time"
        )
        self._of_versions = (
            *(self.requests, self.request_seconds, self.stage_seconds),
            *(self.batch_size, self.batches, self.step_seconds, self.device_memory),
        )
        self._nobodys = VersionSeries(self._of_versions)
        self._versions: dict[tuple[str, int], VersionSeries] = {}
        # a dashboard finds these before the first request
        for result in ("sent", "lost", "heard"):
            self.announcements.labels(result)
        for reason in ENDED:
            self.connections_ended.labels(reason)
        self.rejected.labels("out-of-memory")  # an alert compares with what was before the first one

    def expect_model(self, model: str) -> None:
        """Makes the series of a model's loads: alerts compare with what was before the first one."""
        for result in LOAD_RESULTS:
            self.model_loads.labels(model, result)
        self.load_fails(model, None)

    def load_fails(self, model: str, failure: str | None) -> None:
        """Notes how registry or load failed when last tried: "failed", "no_space", or None."""
        for result in ("failed", "no_space"):
            self.model_load_failing.labels(model, result).set(result == failure)

    def watch(
        self,
        *,
        inflight: Callable[[], float],
        expected_work: Callable[[], float],
        depths: Mapping[str, Callable[[], float]],
        oldest_ages: Mapping[str, Callable[[], float]],
    ) -> None:
        """Reads gauges from where the numbers are: requests, seconds of work, ages in seconds by queue."""
        self.inflight.set_function(inflight)
        self.expected_work.set_function(expected_work)
        for gauge, functions in ((self.queue_depth, depths), (self.queue_oldest_age, oldest_ages)):
            for queue, function in functions.items():
                gauge.labels(queue).set_function(partial(self._together, gauge, (queue,), function))

    def set_part(self, gauge: Gauge, value: float, *labels: str, process: str = "") -> None:
        """Sets what one process of the service measured; the gauge tells the worst or the sum of all."""
        self._parts.setdefault((gauge, *labels), {})[process] = value
        self._with(gauge, labels).set(self._together(gauge, labels))

    def drop_parts(self, process: str) -> None:
        """Forgets what a process measured that has ended."""
        for (gauge, *labels), parts in self._parts.items():
            if parts.pop(process, None) is not None:
                self._with(gauge, tuple(labels)).set(self._together(gauge, tuple(labels)))

    def _together(
        self, gauge: Gauge, labels: tuple[str, ...], own: Callable[[], float] | None = None
    ) -> float:
        """The parts of all processes, this one's among them."""
        parts = [*self._parts.get((gauge, *labels), {}).values(), *(() if own is None else (own(),))]
        worst = gauge in (self.event_loop_lag, self.queue_oldest_age)
        return max(parts, default=0.0) if worst else sum(parts)

    def succeeded(self) -> None:
        """Notes that a segmentation was answered."""
        self.last_success.set_to_current_time()

    def count(self, counter: Counter, *labels: str, by: float = 1) -> None:
        """Counts under labels; they are remembered, since to find them takes longer than to count."""
        self._with(counter, labels).inc(by)

    def observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        """Observes a value, in the unit of the histogram's buckets, under labels, as `count` does."""
        self._with(histogram, labels).observe(seconds)

    def request(self, route: str, code: int, seconds: float | None, version: Version | None) -> None:
        """Takes in a request that was answered, by a version or before it got one; None is not timed."""
        own = self._of(version) or self._nobodys
        own.count(self.requests, route, str(code))
        if seconds is not None:
            own.observe(self.request_seconds, seconds, route)

    def stages(self, seconds: Mapping[str, float], devices: Mapping[str, str], version: Version) -> None:
        """Takes in the stages of a segmentation, seconds by name of `STAGES`; and on which device, if any."""
        own = self._of(version)
        if own is not None:
            for stage, value in seconds.items():
                own.observe(self.stage_seconds, value, stage, devices.get(stage, ""))

    def batch(self, version: Version, device: str, trigger: str, pictures: int | None = None) -> None:
        """Takes in what a device is about to predict: pictures, or None for a prediction that was kept."""
        own = self._of(version)
        if own is not None:
            own.count(self.batches, trigger, device)
            if pictures is not None:
                own.observe(self.batch_size, pictures, device)

    def step(self, version: Version, device: str, step: str, seconds: float) -> None:
        """Takes in a step of a device."""
        own = self._of(version)
        if own is not None:
            own.observe(self.step_seconds, seconds, step, device)

    def memory(self, nbytes: int, kind: str, device: str) -> None:
        """Takes in a device's memory that is in use, whatever for."""
        self.set_part(self.device_memory, nbytes, *NOBODY, kind, device)

    def version_came(self, version: Version, devices: Sequence[str], weight_bytes: int = 0) -> None:
        """Takes in a version, the devices that have it, and the bytes that its weights take on each.

        No other version ever gets series of its own.
        """
        own = self._versions.setdefault(
            (version.name, version.version),
            VersionSeries(self._of_versions, (version.name, str(version.version))),
        )
        # else the first failures of a version, which may be all before it is withdrawn, are in no rate
        own.make(self.requests, (("/v1/segment", code) for code in ("200", "500")))
        own.make(self.stage_seconds, ((stage, "") for stage in STAGES if stage not in DEVICE_STAGES))
        own.make(self.stage_seconds, ((stage, device) for stage in DEVICE_STAGES for device in devices))
        own.make(self.batches, ((trigger, device) for trigger in TRIGGERS for device in devices))
        own.make(self.batch_size, ((device,) for device in devices))
        for device in devices:
            own.set(self.device_memory, weight_bytes, WEIGHTS, device)

    def version_gone(self, version: Version) -> None:
        """Removes the series of a version that is freed, so that those of loaded ones are all there are."""
        gone = self._versions.pop((version.name, version.version), None)
        if gone is not None:
            gone.remove()

    def _of(self, version: Version | None) -> VersionSeries | None:
        return None if version is None else self._versions.get((version.name, version.version))

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _with(self, metric: Counter | Histogram | Gauge, labels: tuple[str, ...]) -> Any:
        if not labels:
            return metric
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
