"""A new version on trial: which requests it gets, and what becomes of it.

It is withdrawn where, beside the version that serves, it clearly
- fails, runs out of memory, or is still running when a request's time is over, or
- is slower on the device.
It takes over after so many good answers, or at the end of its time, unless it is worse by the same measures.
There, as nothing more is to come, fewer requests settle it: two failures, one that is half of all, or the
medians of three times. Without a request nothing speaks against it: a trial always ends.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from service.observability.quantiles import percentile

LEAST_FAILURES = 5  # fewer may be chance
FACTOR, MARGIN = 2.0, 0.05  # a failure rate above FACTOR x the current version's + MARGIN is clearly above it
EARLY_FAILURES, EARLY_S = 2, 10.0  # where traffic is thin: so many, nothing good in so many seconds
LEAST_TIMES = 20  # answers whose times' 95th percentiles are compared
EARLY_TIMES, EARLY_TIMES_S = 5, 15.0  # where traffic is thin: so many, after so long, by their medians
LAST_FAILURES, LAST_TIMES = 2, 3  # of either, that settle a trial which ends
TIME_MARGIN = 0.05  # seconds; a difference that nobody feels settles nothing
TIMES_KEPT = 256

TrialResult = Literal["promote", "fall back"]
AnswerResult = Literal["good", "failed", "memory", "late"]


@dataclass(slots=True)
class TrialCounts:
    """Answers of one version since the trial began.

    Attributes:
        good: answers.
        failed: faults of the service.
        memory: the device's memory ran out.
        late: a device was at work when the request's time was over.
        seconds: of devices, for the last good answers that needed the whole model.
    """

    good: int = 0
    failed: int = 0
    memory: int = 0
    late: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES_KEPT))

    def count(self, result: AnswerResult, seconds: float | None = None) -> None:
        """Counts one answer."""
        setattr(self, result, getattr(self, result) + 1)
        if seconds is not None and result == "good":
            self.seconds.append(seconds)

    @property
    def failures(self) -> int:
        """Requests that were not answered, for whichever of the three reasons."""
        return self.failed + self.memory + self.late

    @property
    def failure_rate(self) -> float:
        """0..1; 0 before the first answer."""
        return self.failures / max(1, self.good + self.failures)

    def __str__(self) -> str:
        counted = f"{self.failures} of {self.good + self.failures} requests failed"
        parts = [(self.memory, "for want of memory"), (self.late, "being too late")]
        why = ", ".join(f"{number} {what}" for number, what in parts if number)
        return f"{counted} ({why})" if why else counted


class Trial:
    """Shares requests between the current version and the canary, and compares how they fare.

    Args:
        percent: of the requests that name no version go to the canary, 1..100.
        needed: good answers of the canary until it takes over.
        slowdown: times the current version's seconds on the device that are too many, from 1 up.
        seconds: after which the trial ends.
        held: it goes on until somebody decides; only a canary that clearly fails ends it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        percent: int,
        needed: int,
        slowdown: float = 2.0,
        seconds: float = 3600.0,
        held: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.percent = percent
        self.needed = needed
        self.seconds = seconds
        self.held = held
        self.canary = TrialCounts()
        self.current = TrialCounts()
        self._slowdown = slowdown
        self._clock = clock
        self._first_answer: float | None = None  # of the canary
        self._slow = ""  # how much too slow it is
        self._due = 0  # hundredths of a request that the canary has not got yet

    def next_is_canary(self) -> bool:
        """Whether the next request goes to the canary: evenly spread, exactly `percent` of every 100."""
        self._due += self.percent
        if self._due < 100:
            return False
        self._due -= 100
        return True

    def count(
        self, result: AnswerResult, *, canary: bool, seconds: float | None = None
    ) -> TrialResult | None:
        """Takes in one answer; says so when it settles the trial.

        Args:
            result: what became of it.
            canary: whether it is the canary's.
            seconds: of devices, if the whole model ran.
        """
        (self.canary if canary else self.current).count(result, seconds)
        if canary and self._first_answer is None:
            self._first_answer = self._clock()
        if self._fails() or self._is_slow():
            return "fall back"
        return self.at_end() if self.canary.good >= self.needed and not self.held else None

    def at_end(self) -> TrialResult:
        """What becomes of the canary now, however few requests there were."""
        return "fall back" if self._fails(at_end=True) or self._is_slow(at_end=True) else "promote"

    def _age(self) -> float:
        return 0.0 if self._first_answer is None else self._clock() - self._first_answer

    def _fails(self, *, at_end: bool = False) -> bool:
        canary = self.canary
        if canary.failure_rate <= FACTOR * self.current.failure_rate + MARGIN:
            return False
        if at_end:
            return canary.failures >= LAST_FAILURES or canary.failures >= canary.good
        early = not canary.good and canary.failures >= EARLY_FAILURES and self._age() >= EARLY_S
        return canary.failures >= LEAST_FAILURES or early

    def _is_slow(self, *, at_end: bool = False) -> bool:
        own, other = self.canary.seconds, self.current.seconds
        few = (LAST_TIMES, 0.0) if at_end else (EARLY_TIMES, EARLY_TIMES_S)
        for percent, least, after in ((95, LEAST_TIMES, 0.0), (50, *few)):
            if min(len(own), len(other)) < least or self._age() < after:
                continue
            ours, theirs = percentile(own, percent), percentile(other, percent)
            if ours > self._slowdown * theirs + TIME_MARGIN:
                self._slow = f"; {percent} % took up to {ours:.3g} s, beside {theirs:.3g} s"
                return True
        return False

    def __str__(self) -> str:
        return f"{self.canary}; of the version beside it {self.current}{self._slow}"
