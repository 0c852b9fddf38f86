"""`ebseg models canary --watch`: a named canary judged over all processes, by what Prometheus has of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from model.errors import ModelError
from model.urls import without_secrets
from service.hot_loading.canary import (
    FACTOR,
    LAST_FAILURES,
    LAST_TIMES,
    LEAST_FAILURES,
    LEAST_TIMES,
    MARGIN,
    TIME_MARGIN,
)

if TYPE_CHECKING:
    from ebseg_client import EBSegClient

SEEN_S = 120.0  # within which the service has to see a canary that was written into its registry
SLOWDOWN = 2.0  # times the other version's time that are too many, as of the setting canary_slowdown
ANSWERS, FAILED, SECONDS = (
    "ebseg:version_answers:increase10m",
    "ebseg:version_failed:increase10m",
    "ebseg:version_predict_seconds:p95_10m",
)
Advice = Literal["wait", "go on", "go back"]


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """One version over all processes, in the last ten minutes.

    Attributes:
        answers: segmentations it had, failed ones too.
        failed: of them, by a fault of the service.
        seconds: 95th percentile of a picture's prediction; None where nothing ran.
    """

    answers: float = 0.0
    failed: float = 0.0
    seconds: float | None = None

    @property
    def rate(self) -> float:
        """Share that failed, 0..1."""
        return self.failed / self.answers if self.answers else 0.0

    def __str__(self) -> str:
        took = "" if self.seconds is None else f", p95 {self.seconds:.3g} s"
        return f"{self.failed:.0f} of {self.answers:.0f} failed{took}"


def judge(canary: FleetFigures, beside: FleetFigures, needed: int) -> Advice:
    """What to do with a canary: the same margins as within one process, over all of them.

    Args:
        canary: on trial.
        beside: the version that serves.
        needed: answers of the canary that are enough to go on.
    """
    done = canary.answers - canary.failed >= needed  # where there is more to come, few may be chance
    failures, times = (LAST_FAILURES, LAST_TIMES) if done else (LEAST_FAILURES, LEAST_TIMES)
    if canary.failed >= failures and canary.rate > FACTOR * beside.rate + MARGIN:
        return "go back"
    enough = min(canary.answers, beside.answers) >= times
    known = canary.seconds is not None and beside.seconds is not None
    if enough and known and (canary.seconds or 0.0) > SLOWDOWN * (beside.seconds or 0.0) + TIME_MARGIN:
        return "go back"
    return "go on" if done else "wait"


class FleetMetrics:
    """Figures of a model's versions, from Prometheus' recording rules.

    Args:
        url: of Prometheus.
        model: its name.
        seconds: that an answer may take.

    Raises:
        ModelError: it does not answer as Prometheus does; of all that follow.
    """

    def __init__(self, url: str, model: str, seconds: float):
        self._url = url.rstrip("/")
        self._model = model
        self._seconds = seconds

    def of(self, version: int) -> FleetFigures:
        """What there is of a version."""
        found = {name: self._value(name, version) for name in (ANSWERS, FAILED, SECONDS)}
        return FleetFigures(found[ANSWERS] or 0.0, found[FAILED] or 0.0, found[SECONDS])

    def _value(self, name: str, version: int) -> float | None:
        import httpx

        select = f'{name}{{model="{self._model}",version="{version}"}}'
        how = "max" if name == SECONDS else "sum"
        try:
            answer = httpx.get(
                f"{self._url}/api/v1/query", params={"query": f"{how}({select})"}, timeout=self._seconds
            )
            answer.raise_for_status()
            result: Sequence[dict[str, Any]] = answer.json()["data"]["result"]
            value = float(result[0]["value"][1]) if result else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
            failure = without_secrets(f"{self._url} does not answer as Prometheus does: {error}")
            raise ModelError(f"--prometheus: {failure}") from error
        return None if value is None or value != value else value  # NaN: nothing ran


def watch(
    client: "EBSegClient",
    name: str,
    metrics: FleetMetrics,
    *,
    begun: int | None = None,
    needed: int,
    every: float,
    notify: Callable[[str], None],
) -> int:
    """Looks at a named canary until it is clear what to do, and says so.

    Args:
        client: of any process of the service.
        name: of the model.
        metrics: of all processes.
        begun: the version that was asked for just now, which the service may not have seen yet.
        needed: as of `judge`.
        every: seconds between two looks.
        notify: takes a line.

    Returns:
        Exit code: 0 to go on, 1 to go back.

    Raises:
        ModelError: no canary is asked for by its number, or none any more.
    """
    end = time.monotonic() + SEEN_S
    while True:
        model = client.model(name)
        asked = model.asked
        if begun is not None and time.monotonic() < end and (asked is None or asked.canary != begun):
            time.sleep(min(every, 1.0))
            continue
        if asked is None or asked.canary is None or asked.version is None:
            how = f"`ebseg models canary {name} VERSION` does it"
            raise ModelError(f"no canary of {name} is asked for; {how}")
        begun = None
        canary, beside = metrics.of(asked.canary), metrics.of(asked.version)
        withdrawn = [one.reason for one in model.quarantined if one.version == asked.canary]
        advice = "go back" if withdrawn else judge(canary, beside, needed)
        tried = f"version {asked.canary}, {asked.percent} %: {canary}"
        notify(f"{tried}; version {asked.version}: {beside}: {advice}")
        for reason in withdrawn:
            notify(f"version {asked.canary} was withdrawn: {reason}")
        if advice == "go on":
            more = f"ebseg models canary {name} {asked.canary} --percent 50"
            notify(f"more: {more}; all: ebseg models pin {name} {asked.canary}")
            return 0
        if advice == "go back":
            notify(f"back: ebseg models rollback {name}")
            return 1
        time.sleep(every)
