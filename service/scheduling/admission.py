"""Who is let in: bounds on requests and on their cost, and an estimate of when to come back.

Cost is in network pixels. What a pixel costs in device seconds is measured as the service runs; before
the first measurement nobody is refused by an estimate.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import ClientGoneError, DeadlineExceededError, DeadlineUnmeetableError, QueueFullError
from service.scheduling.deadline import Deadline

_SMOOTHING = 0.1  # weight of the newest batch in the means
_LONGEST_RETRY = 120  # seconds; nobody should be sent away for longer
# Seconds that an estimate may refuse requests for. A wrong one that refuses everybody would never be put
# right: nothing would be measured any more.
_TRUSTED = 30.0


class Admission:
    """Counts requests from their first byte to their answer, and their cost from the picture's header on.

    All methods may be called from any thread.

    Args:
        max_requests: under way at a time.
        max_cost: network pixels under way at a time; one request alone may have more.
        devices: that work side by side.
    """

    def __init__(self, *, max_requests: int, max_cost: int, devices: int):
        self.max_requests = max_requests
        self.max_cost = max_cost
        self._devices = devices
        self._lock = threading.RLock()
        self._pending = 0
        self._priced = 0  # those of them whose cost is known
        self._pending_cost = 0
        # means over batches; their ratio is the seconds per cost, so that large batches weigh more
        self._mean_cost = 0.0
        self._mean_seconds = 0.0
        self._measured = -math.inf

    @property
    def pending(self) -> int:
        """Requests under way."""
        return self._pending

    @property
    def pending_cost(self) -> int:
        """Network pixels of the requests under way whose picture's size is known."""
        return self._pending_cost

    @contextmanager
    def admit(self) -> Iterator["Ticket"]:
        """Holds a place. On leaving, it is given back with all that its ticket reserved.

        Raises:
            QueueFullError: there is none.
        """
        with self._lock:
            if self._pending >= self.max_requests:
                raise QueueFullError(self.retry_after())
            self._pending += 1
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            with self._lock:
                self._pending -= 1
                self._priced -= ticket.reserved
                self._pending_cost -= ticket.cost
                ticket.left = True

    def served(self, cost: int, seconds: float) -> None:
        """Notes how long some cost kept a device busy: the batch's whole cost for a batch."""
        if cost <= 0:
            return
        with self._lock:
            if self._mean_cost == 0:
                self._mean_cost, self._mean_seconds = cost, seconds
            self._mean_cost += _SMOOTHING * (cost - self._mean_cost)
            self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)
            self._measured = time.monotonic()

    def retry_after(self) -> int:
        """Whole seconds, 1 to 120, until a request like those under way is likely to be let in."""
        with self._lock:
            mean = self._pending_cost / self._priced if self._priced else 0.0
            places = max(0, self._pending + 1 - self.max_requests) * mean
            return self._until_done(max(places, self._pending_cost + mean - self.max_cost))

    def _until_done(self, cost: float) -> int:
        """Whole seconds until so much of what is under way is likely to be done, or all of it."""
        return _whole(min(cost, self._pending_cost) * self._rate() / self._devices)

    def _rate(self) -> float:
        """Device seconds per cost; 0 before the first measurement."""
        return self._mean_seconds / self._mean_cost if self._mean_cost else 0.0

    def _reserve(self, ticket: "Ticket", cost: int, deadline: Deadline) -> None:
        with self._lock:
            if ticket.left:
                raise ClientGoneError("the request has ended before its picture was read")
            deadline.check()
            trusted = time.monotonic() - self._measured <= _TRUSTED
            rate = self._rate() if trusted else 0.0
            left = deadline.left()
            if cost * rate > left:
                raise DeadlineExceededError(
                    f"this picture alone takes about {cost * rate:.1f} s, and {left:.1f} s are left of the "
                    "request's time; send a smaller picture or raise timeout_ms"
                )
            others = self._pending_cost - ticket.cost
            if others and self._pending_cost + cost > self.max_cost:
                raise QueueFullError(self._until_done(self._pending_cost + cost - self.max_cost))
            late = (self._pending_cost / self._devices + cost) * rate - left
            if late > 0:
                raise DeadlineUnmeetableError(_whole(late))
            self._priced += not ticket.reserved
            self._pending_cost += cost
            ticket.cost += cost
            ticket.reserved = True


class Ticket:
    """A place that `Admission.admit` gave.

    Attributes:
        cost: that it holds.
        reserved: whether its cost is known.
        left: whether the place was given back.
    """

    def __init__(self, admission: Admission):
        self._admission = admission
        self.cost = 0
        self.reserved = False
        self.left = False

    def reserve(self, cost: int, deadline: Deadline) -> None:
        """Reserves network pixels, on top of those that this ticket has.

        Raises:
            QueueFullError: too many are under way.
            DeadlineUnmeetableError: what is under way leaves too little of the request's time.
            DeadlineExceededError: even alone it would take longer than is left.
            ClientGoneError: the place was given back meanwhile.
        """
        self._admission._reserve(self, cost, deadline)


def _whole(seconds: float) -> int:
    return min(max(1, math.ceil(seconds)), _LONGEST_RETRY)
