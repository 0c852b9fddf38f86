"""A new version on trial: which requests it gets, and what becomes of it."""

from dataclasses import dataclass
from typing import Literal

LEAST_FAILURES = 5  # fewer may be chance
FACTOR, MARGIN = 2.0, 0.05  # a failure rate above FACTOR x the current version's + MARGIN is clearly above it

TrialResult = Literal["promote", "fall back"]


@dataclass(slots=True)
class TrialCounts:
    """Answers of one version since the trial began."""

    good: int = 0
    failed: int = 0

    def count(self, ok: bool) -> None:
        """Counts one answer."""
        if ok:
            self.good += 1
        else:
            self.failed += 1

    @property
    def failure_rate(self) -> float:
        """0..1; 0 before the first answer."""
        return self.failed / max(1, self.good + self.failed)

    def __str__(self) -> str:
        return f"{self.failed} of {self.good + self.failed} requests failed"


class Trial:
    """Shares requests between the current version and the canary, and compares how they fare.

    Args:
        percent: of the requests that name no version go to the canary, 1..100.
        needed: good answers of the canary until it takes over.
    """

    def __init__(self, *, percent: int, needed: int):
        self.percent = percent
        self.needed = needed
        self.canary = TrialCounts()
        self.current = TrialCounts()
        self._due = 0  # hundredths of a request that the canary has not got yet

    def next_is_canary(self) -> bool:
        """Whether the next request goes to the canary: evenly spread, exactly `percent` of every 100."""
        self._due += self.percent
        if self._due < 100:
            return False
        self._due -= 100
        return True

    def count(self, ok: bool, *, canary: bool) -> TrialResult | None:
        """Takes in one answer; says so when it settles the trial."""
        (self.canary if canary else self.current).count(ok)
        allowed = FACTOR * self.current.failure_rate + MARGIN
        if self.canary.failed >= LEAST_FAILURES and self.canary.failure_rate > allowed:
            return "fall back"
        return "promote" if self.canary.good >= self.needed else None

    def __str__(self) -> str:
        return f"{self.canary}; of the version beside it {self.current}"
