"""How long a request may take, queueing and running both."""

import time

from service.errors import DeadlineExceededError


class Deadline:
    """How long a request may take; threads ask it before they start anything that costs.

    Args:
        seconds: in all.
        since: when they began, by `time.monotonic`; now if left out.
    """

    def __init__(self, seconds: float, *, since: float | None = None):
        self.seconds = seconds
        self.at = (time.monotonic() if since is None else since) + seconds
        self.abandoned = False  # set when nobody waits for the answer any more

    def left(self) -> float:
        """Seconds that are left, or less than 0."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """Raises DeadlineExceededError if going on is in vain."""
        if self.abandoned or self.left() <= 0:
            raise DeadlineExceededError(f"the request's time of {self.seconds:g} s is over; see timeout_ms")
