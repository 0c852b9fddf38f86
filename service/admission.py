"""Who is let in: a bound on the requests under way, and a guess of when to come back."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFullError

_SMOOTHING = 0.1  # weight of the newest request in the mean
_LONGEST_RETRY = 120  # seconds; nobody should be sent away for longer


class Admission:
    """Counts requests from their first byte to their answer. Lives on the event loop's thread.

    Args:
        limit: requests under way at a time.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.pending = 0
        self._mean_seconds = 0.0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Holds a place.

        Raises:
            QueueFullError: there is none.
        """
        if self.pending >= self.limit:
            raise QueueFullError(self.retry_after())
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    def served(self, seconds: float) -> None:
        """Notes how long a request kept the engine busy."""
        if self._mean_seconds == 0:
            self._mean_seconds = seconds
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

    def retry_after(self) -> int:
        """Seconds until the requests under way should be half done, 1 at least."""
        seconds = math.ceil(self.pending / 2 * self._mean_seconds)
        return min(max(1, seconds), _LONGEST_RETRY)
