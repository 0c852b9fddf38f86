"""Series of one version: of requests, stages, steps, batches and weights. They live as long as it does."""

from collections.abc import Collection, Iterable, Mapping
from threading import Lock
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

LABELS = ("model", "version")
NOBODY = ("", "")  # Prometheus takes an empty label for one that is not there


class VersionSeries:
    """Finds series by the labels that are left, and remembers them: to find one takes longer than to count.

    For any thread.

    Args:
        metrics: whose first labels are `LABELS`.
        version: values of these; `NOBODY` for what belongs to no version.
    """

    def __init__(self, metrics: Collection[MetricWrapperBase], version: tuple[str, str] = NOBODY):
        self._metrics = metrics
        self._version = version
        self._found: dict[tuple[Any, ...], Any] = {}
        self._lock = Lock()
        self._removed = False

    def make(self, metric: MetricWrapperBase, labels: Iterable[tuple[str, ...]]) -> None:
        """Makes series, for a dashboard and for rates to find before their first event."""
        for one in labels:
            self._find(metric, one)

    def count(self, counter: Any, *labels: str) -> None:
        """Counts one event."""
        found = self._found.get((counter, *labels)) or self._find(counter, labels)
        if found is not None:
            found.inc()

    def observe(self, histogram: Any, value: float, *labels: str) -> None:
        """Observes a value, in the unit of the histogram's buckets."""
        found = self._found.get((histogram, *labels)) or self._find(histogram, labels)
        if found is not None:
            found.observe(value)

    def set(self, gauge: Any, value: float, *labels: str) -> None:
        """Sets what is so at present."""
        found = self._found.get((gauge, *labels)) or self._find(gauge, labels)
        if found is not None:
            found.set(value)

    def remove(self) -> None:
        """Removes them; what is counted from now on, by whoever is late, makes none anew."""
        own: Mapping[str, str] = dict(zip(LABELS, self._version, strict=True))
        with self._lock:
            self._removed = True
            self._found = {}
            for metric in self._metrics:
                metric.remove_by_labels(dict(own))

    def _find(self, metric: MetricWrapperBase, labels: tuple[str, ...]) -> Any:
        with self._lock:
            if self._removed:
                return None
            found = self._found[(metric, *labels)] = metric.labels(*self._version, *labels)
            return found
