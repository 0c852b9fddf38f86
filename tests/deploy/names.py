"""Names of the service's metrics, and those that queries use."""

import re

from service.observability.metrics import Metrics

_NAME = re.compile(r"(?<![\w:])ebseg[_:][a-z0-9_:]+(?![\w:])")
_STRINGS = re.compile(r'"[^"]*"|\'[^\']*\'')
_LABELS_BY = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NOT_METRICS = frozenset({"ebseg_track"})  # a label that Prometheus makes of the pod's


def metric_names(metrics: Metrics) -> set[str]:
    """Names as they are queried: counters with _total, histograms with their three endings."""
    names: set[str] = set()
    for family in metrics.registry.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + ending for ending in endings}
    return names


def label_names(metrics: Metrics) -> dict[str, set[str]]:
    """Labels by name of the metric, without those that Prometheus adds."""
    labels: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        for family in getattr(metric, "describe", list)():
            own = set(metric._labelnames)
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                family.type, [""]
            )
            for ending in endings:
                labels[family.name + ending] = own | ({"le"} if ending == "_bucket" else set())
    return labels


def used_metrics(query: str) -> set[str]:
    """Our metrics and recorded series that a PromQL query names."""
    bare = _LABELS_BY.sub("", _STRINGS.sub('""', query))
    return set(_NAME.findall(bare)) - _NOT_METRICS


def unknown_metrics(query: str, recorded: frozenset[str] = frozenset()) -> set[str]:
    """Those of them that nobody exposes or records."""
    return used_metrics(query) - metric_names(Metrics()) - recorded
