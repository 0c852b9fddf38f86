"""What a checkpoint must show before it is published: scores, and none much worse than the last version's.

A metric that one of the two has no value of cannot be compared: it is left out, and that is said. At least
one has to be left.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GATED_METRICS = ("miou_all", "miou_trained", "miou_new")
MARGIN = 0.5  # points of mIoU; seeds of one recipe differ by about as much

MEASURE = "measure it with ebseg evaluate RUN DATA --save, which writes the scores into the run"
MEASURED_ON = ("data", "split", "pictures")
"""Entries of metrics.json that say what was measured: scores compare only where they agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricComparison:
    """One metric of the checkpoint beside the last version's.

    Attributes:
        metric: its name in metrics.json.
        new, old: percent; None where there is none.
        limit: the lowest value that passes; None where there is nothing to compare with.
    """

    metric: str
    new: float | None
    old: float | None
    limit: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """All scores; what speaks against publishing, and which metrics were not compared, a sentence each."""

    scores: tuple[MetricComparison, ...]
    objections: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def judge(
    new: Mapping[str, Any],
    old: Mapping[str, Any] | None,
    *,
    old_version: int | None,
    metrics: Sequence[str] = GATED_METRICS,
    margin: float = MARGIN,
) -> GateResult:
    """Compares metrics.json of a checkpoint with that of the last version.

    Args:
        new, old: contents of metrics.json; `old` is None where nothing was published yet.
        old_version: number of the last version.
        metrics: which entries count, as far as both have them.
        margin: points by which each may be worse.
    """
    if all(new.get(metric) is None for metric in metrics):
        return GateResult(
            scores=tuple(_unmeasured(metric, old) for metric in metrics),
            objections=(f"none of {', '.join(metrics)} was measured: {MEASURE}",),
        )
    objections = [
        f'metrics.json does not say what was measured: no "{key}"; {MEASURE}'
        for key in ("data", "split")
        if not isinstance(new.get(key), str)
    ]
    comparable = False
    if old is not None:
        comparable, objection = _same_measurement(new, old, old_version)
        objections += [objection] if objection else []
    scores, left_out = [], []
    for metric in metrics:
        value, before = _percent(new.get(metric)), _percent(old.get(metric)) if old is not None else None
        limit = before - margin if comparable and before is not None and value is not None else None
        scores.append(MetricComparison(metric=metric, new=value, old=before, limit=limit))
        if new.get(metric) is None:
            left_out.append(f"{metric}: this checkpoint has none, for its data holds no such class")
        elif value is None:
            objections.append(f"{metric} is {new[metric]}, not a finite number of percent: {MEASURE}")
        elif comparable and before is None:
            left_out.append(f"{metric}: version {old_version} has none")
        elif limit is not None and value < limit:
            objections.append(
                f"{metric} fell from {before:.2f} (version {old_version}) to {value:.2f}, below the limit "
                f"{limit:.2f} (margin {margin:g})"
            )
    if comparable and all(score.limit is None for score in scores):
        objections.append(
            f"no metric is there both for this checkpoint and for version {old_version}: nothing to compare"
        )
    return GateResult(scores=tuple(scores), objections=tuple(objections), left_out=tuple(left_out))


def _unmeasured(metric: str, old: Mapping[str, Any] | None) -> MetricComparison:
    before = _percent(old.get(metric)) if old is not None else None
    return MetricComparison(metric=metric, new=None, old=before, limit=None)


def finite(value: Any) -> Any:
    """JSON values with None for NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def _same_measurement(
    new: Mapping[str, Any], old: Mapping[str, Any], old_version: int | None
) -> tuple[bool, str | None]:
    if not any(key in old for key in GATED_METRICS):
        return False, (
            f"version {old_version} was never measured, so there is nothing to compare with; look at the "
            "scores yourself and use --force"
        )
    differing = [key for key in MEASURED_ON if new.get(key) != old.get(key)]
    if not differing:
        return True, None
    differences = ", ".join(f"{key} {old.get(key)!r} then, {new.get(key)!r} now" for key in differing)
    return False, (
        f"version {old_version} was measured on something else ({differences}): measure the checkpoint on "
        "what that was measured on, or use --force if the data was changed on purpose"
    )


def _percent(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= 100 else None
