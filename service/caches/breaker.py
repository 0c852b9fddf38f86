"""A circuit breaker: who fails a few times in a row is left alone for a while."""

import random
import time
from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """What a breaker lets through; the numbers are those of `ebseg_redis_breaker_state`."""

    CLOSED = 0  # everything
    HALF_OPEN = 1  # one probe, which is under way
    OPEN = 2  # nothing


class Breaker:
    """Opens after failures in a row, lets one probe through after a back-off, closes when that succeeds.

    Each opening waits twice as long as the one before, until an ordinary request has succeeded again:
    a server that answers probes and nothing else is asked ever more seldom. Not for several threads.

    Args:
        failures: in a row, that open it.
        first_s: the first back-off, seconds.
        longest_s: the back-off's upper end, seconds.
        on_change: notified of each new state.
        clock: monotonic seconds.
        jitter: a number of 0..1; back-offs are 0.8 to 1.2 times their nominal length, so that many
            processes do not come back at the same moment.
    """

    def __init__(
        self,
        *,
        failures: int = 3,
        first_s: float = 1.0,
        longest_s: float = 30.0,
        on_change: Callable[[State], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ):
        self.state = State.CLOSED
        self._most_failures = failures
        self._first_s = first_s
        self._longest_s = longest_s
        self.on_change = on_change
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._openings = 0  # since an ordinary request last succeeded
        self._probe_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether ordinary requests may go."""
        return self.state is State.CLOSED

    def succeeded(self) -> None:
        """An ordinary request was answered. Says nothing when it is older than the present state."""
        if self.closed:
            self._failures = self._openings = 0

    def failed(self) -> None:
        """An ordinary request was not answered. Says nothing when it is older than the present state."""
        if self.closed:
            self._failures += 1
            if self._failures >= self._most_failures:
                self._open()

    def probe_in(self) -> float:
        """Seconds until a probe may go; 0 when it may go now."""
        return max(0.0, self._probe_at - self._clock())

    def begin_probe(self) -> bool:
        """Whether the caller may ask once; if so, `end_probe` must follow."""
        if self.state is not State.OPEN or self.probe_in() > 0:
            return False
        self._change(State.HALF_OPEN)
        return True

    def end_probe(self, ok: bool) -> None:
        """The probe's outcome."""
        if self.state is not State.HALF_OPEN:
            raise RuntimeError("end_probe without begin_probe")
        if ok:
            self._failures = 0
            self._change(State.CLOSED)
        else:
            self._open()

    def _open(self) -> None:
        nominal = min(self._longest_s, self._first_s * 2.0 ** min(self._openings, 32))  # 32: no overflow
        self._openings += 1
        self._probe_at = self._clock() + nominal * (0.8 + 0.4 * self._jitter())
        self._change(State.OPEN)

    def _change(self, state: State) -> None:
        self.state = state
        self.on_change(state)
