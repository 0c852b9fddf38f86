"""Prometheus metrics of one app, on a registry of their own. No label holds a user's text."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.engine import ModelInfo

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
MEGAPIXELS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 50.0)
CLASSES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1024.0)
STAGES = ("decode", "text", "queue", "predict", "classify", "encode")


class Metrics:
    """All metrics; `ebseg_` goes before each name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ebseg_requests", "Requests answered", ["route", "code"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "ebseg_request_duration_seconds",
            "Time from a request's headers to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "ebseg_stage_duration_seconds",
            "Time of a segmentation's stages",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.inflight = Gauge("ebseg_inflight", "Segmentations under way", registry=self.registry)
        self.queue_depth = Gauge(
            "ebseg_queue_depth", "Segmentations that wait for the engine", registry=self.registry
        )
        self.rejected = Counter("ebseg_rejected", "Requests refused", ["reason"], registry=self.registry)
        self.megapixels = Histogram(
            "ebseg_image_megapixels", "Size of pictures", buckets=MEGAPIXELS, registry=self.registry
        )
        self.vocabulary_size = Histogram(
            "ebseg_vocabulary_size", "Classes of a request", buckets=CLASSES, registry=self.registry
        )
        self.model_info = Gauge(
            "ebseg_model_info", "The loaded model", ["model", "version", "digest"], registry=self.registry
        )
        self.last_success = Gauge(
            "ebseg_last_success_timestamp_seconds",
            "When a segmentation was last answered, Unix time",
            registry=self.registry,
        )
        for stage in STAGES:  # a dashboard finds all stages before the first request
            self.stage_seconds.labels(stage)

    def watch(self, inflight: Callable[[], float], queue_depth: Callable[[], float]) -> None:
        """Reads two gauges from where the numbers are."""
        self.inflight.set_function(inflight)
        self.queue_depth.set_function(queue_depth)

    def loaded(self, info: ModelInfo) -> None:
        """Notes the model that answers from now on."""
        self.model_info.clear()
        self.model_info.labels(info.name, str(info.version), info.digest).set(1)

    def stages(self, seconds: Mapping[str, float]) -> None:
        """Observes the time of stages."""
        for stage, value in seconds.items():
            self.stage_seconds.labels(stage).observe(value)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
