"""A worker's metrics: it counts nothing itself, but tells the engine's process what to count.

So there is one set of metrics, whichever process answers for it, and it outlives a worker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.observability.metrics import Metrics, Version

Event = list[Any]  # what is to be done, and with what
FLUSH_S = 0.1  # between two messages; a worker that is killed takes so much of its counts along


@dataclass(frozen=True, slots=True)
class VersionNumber:
    """A version, as far as metrics know it."""

    name: str
    version: int


class RelayedMetrics(Metrics):
    """Collects what happens, until `taken`. Appending to a list needs no lock between threads."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []
        self._last: dict[tuple[Any, ...], float] = {}  # of gauges
        self._names = {value: name for name, value in vars(self).items() if _is_metric(value)}

    def taken(self) -> list[Event]:
        """What happened since it was last asked."""
        events, self._events = self._events, []
        return events

    def sample(self, gauge: Gauge, value: float, *labels: str) -> None:
        """Notes what this process measures."""
        self.set_part(gauge, value, *labels)

    def set_part(self, gauge: Gauge, value: float, *labels: str, process: str = "") -> None:
        """See `Metrics`; the engine's process knows whose it is, and is told of changes only."""
        if self._last.get((gauge, *labels)) != value:
            self._last[gauge, *labels] = value
            self._events.append(["part", self._names[gauge], value, *labels])

    def count(self, counter: Counter, *labels: str, by: float = 1) -> None:
        """See `Metrics`."""
        self._events.append(["count", self._names[counter], by, *labels])

    def observe(self, histogram: Histogram, seconds: float, *labels: str) -> None:
        """See `Metrics`."""
        self._events.append(["observe", self._names[histogram], seconds, *labels])

    def succeeded(self) -> None:
        """See `Metrics`."""
        self._events.append(["succeeded"])

    def request(self, route: str, code: int, seconds: float | None, version: Version | None) -> None:
        """See `Metrics`."""
        own = None if version is None else [version.name, version.version]
        self._events.append(["request", route, code, seconds, own])

    def stages(self, seconds: Mapping[str, float], devices: Mapping[str, str], version: Version) -> None:
        """See `Metrics`."""
        self._events.append(["stages", dict(seconds), dict(devices), [version.name, version.version]])


def apply(metrics: Metrics, events: list[Event], process: str) -> None:
    """Does in the engine's process what a worker noted.

    Args:
        metrics: of the service.
        events: of `RelayedMetrics.taken`.
        process: whose they are.
    """
    doing: dict[str, Callable[..., None]] = {
        "part": lambda name, value, *labels: metrics.set_part(
            getattr(metrics, name), value, *labels, process=process
        ),
        "count": lambda name, by, *labels: metrics.count(getattr(metrics, name), *labels, by=by),
        "observe": lambda name, value, *labels: metrics.observe(getattr(metrics, name), value, *labels),
        "succeeded": metrics.succeeded,
        "request": lambda route, code, seconds, own: metrics.request(
            route, code, seconds, None if own is None else VersionNumber(*own)
        ),
        "stages": lambda seconds, devices, own: metrics.stages(seconds, devices, VersionNumber(*own)),
    }
    for what, *arguments in events:
        doing[what](*arguments)


def _is_metric(value: Any) -> bool:
    return isinstance(value, MetricWrapperBase)
