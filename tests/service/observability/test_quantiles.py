"""Percentiles of values whose ranks are known."""

import random

from service.observability.quantiles import percentile, percentiles


def test_by_nearest_rank_in_any_order() -> None:
    values = [float(x) for x in range(1, 201)]
    random.Random(0).shuffle(values)
    assert percentiles(values, (50, 95, 99)) == {"p50": 100, "p95": 190, "p99": 198}
    assert percentile(values, 100) == 200


def test_few_values_and_none() -> None:
    assert percentiles([], (50, 99)) == {"p50": None, "p99": None}
    assert [percentile([7.0], percent) for percent in (1, 50, 100)] == [7.0] * 3
    assert [percentile([2.0, 1.0], percent) for percent in (50, 51)] == [1.0, 2.0]
