"""A version's counts and times, out of the metrics that there are of it."""

from collections.abc import Callable, Mapping

from prometheus_client.metrics import MetricWrapperBase

from service.observability.metrics import Metrics
from service.schemas.inference_repository import Duration, InferenceStatistics, VersionStatistics

_NS = 1_000_000_000
Labels = Mapping[str, str]


def statistics_of(metrics: Metrics, model: str, version: str) -> VersionStatistics:
    """Counts and times of a version since it was loaded."""
    own = {"model": model, "version": version}

    def total(
        metric: MetricWrapperBase, end: str, fits: Callable[[Labels], bool] = lambda labels: True
    ) -> float:
        return sum(
            sample.value
            for family in metric.collect()
            for sample in family.samples
            if sample.name.endswith(end) and own.items() <= sample.labels.items() and fits(sample.labels)
        )

    def stage(*names: str) -> Duration:
        count = total(metrics.stage_seconds, "_count", lambda labels: labels["stage"] == names[-1])
        seconds = total(metrics.stage_seconds, "_sum", lambda labels: labels["stage"] in names)
        return Duration(count=int(count), ns=int(seconds * _NS))

    def answered(labels: Labels) -> bool:
        return labels["code"] == "200"

    good = int(total(metrics.requests, "_total", answered))
    bad = int(total(metrics.requests, "_total")) - good
    seconds = total(metrics.request_seconds, "_sum")
    pictures = stage("encode")
    return VersionStatistics(
        name=model,
        version=version,
        inference_count=pictures.count,
        execution_count=int(total(metrics.batch_size, "_count")),
        inference_stats=InferenceStatistics(
            success=Duration(count=good, ns=int(seconds * _NS)),
            fail=Duration(count=bad, ns=0),
            queue=stage("queue"),
            compute_input=stage("decode"),
            compute_infer=stage("predict", "classify"),
            compute_output=pictures,
        ),
    )
