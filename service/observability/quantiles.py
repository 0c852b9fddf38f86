"""Percentiles by nearest rank: each is one of the values, as many of them as there are."""

from collections.abc import Collection, Sequence


def percentile(values: Collection[float], percent: int) -> float:
    """The least of the values that so many per cent of them do not exceed.

    Args:
        values: at least one, in any order.
        percent: 1..100.
    """
    ordered = sorted(values)
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def percentiles(values: Collection[float], percents: Sequence[int]) -> dict[str, float | None]:
    """Several of them by name, `p95`; None where there are no values."""
    ordered = sorted(values)
    return {f"p{percent}": percentile(ordered, percent) if ordered else None for percent in percents}
