"""Who is let in: bounds on requests and on what they cost, and how long it takes until there is room.

Cost is in expected seconds of a device, of `Prices`; before anything was measured nobody is refused by it.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from service.caller import client
from service.errors import ClientGoneError, DeadlineExceededError, DeadlineUnmeetableError, QueueFullError
from service.scheduling.deadline import Deadline
from service.scheduling.host_memory import HostAccount
from service.scheduling.returns import Returns, whole

CALM_S = 1.0  # seconds of work under way, up to which a device has little to do


class Admission:
    """Counts requests from their body's end to their answer, and their cost from the picture's header on.

    All methods may be called from any thread.

    Args:
        max_requests: under way at a time.
        max_pixels: at network resolution, under way at a time; one request alone may have more.
        devices: that work side by side.
        trusted: whether expected seconds may refuse a request now.
        ahead: seconds until picture work that begins now is likely to be done.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_pixels: int,
        devices: int,
        trusted: Callable[[], bool] = lambda: True,
        ahead: Callable[[], float] = lambda: 0.0,
    ):
        self.max_requests = max_requests
        self.max_pixels = max_pixels
        self._devices = devices
        self._trusted = trusted
        self._ahead = ahead
        self._lock = threading.RLock()
        self._pending = 0
        self._priced = 0  # those of them whose cost is known
        self._pending_pixels = 0
        self._pending_seconds = 0.0
        self._returns = Returns()

    @property
    def pending(self) -> int:
        """Requests under way."""
        return self._pending

    @property
    def pending_pixels(self) -> int:
        """Network pixels of the requests under way whose picture's size is known."""
        return self._pending_pixels

    @property
    def pending_seconds(self) -> float:
        """Device seconds that the requests under way are expected to need still."""
        return max(0.0, self._pending_seconds)

    @property
    def expected_seconds(self) -> float:
        """Seconds that the devices, side by side, need for all under way; 0 before any is measured."""
        return self.pending_seconds / self._devices

    @property
    def calm(self) -> bool:
        """Whether devices have so little to do that an ordinary request is hardly refused for its cost."""
        return self._pending_pixels <= self.max_pixels / 2 and self.expected_seconds <= CALM_S

    def admit(self, memory: HostAccount | None = None) -> "Ticket":
        """Holds a place, as a context; on leaving it is given back with what its ticket reserved of devices.

        Args:
            memory: what the request reserves of the host's memory; None if nobody counts that.

        Raises:
            QueueFullError: there is none; on entering.
        """
        return Ticket(self, memory)

    def _enter(self) -> None:
        with self._lock:
            self.refuse_if_full()
            self._pending += 1

    def _leave(self, ticket: "Ticket") -> None:
        with self._lock:
            self._pending -= 1
            ticket.computed()
            ticket.left = True

    def refuse_if_full(self) -> None:
        """Raises QueueFullError if there is no place."""
        with self._lock:
            if self._pending >= self.max_requests:
                raise QueueFullError(self.come_back())

    def come_back(self) -> int:
        """The same as `retry_after`, later by the moments of those who were sent away just now."""
        with self._lock:
            return self._sent_away(self.retry_after())

    def _sent_away(self, seconds: float) -> int:
        """Whole seconds, 1 to 120, for one who is sent away until so many seconds have gone by."""
        a_request = self.pending_seconds / max(1, self._priced) / self._devices
        return self._returns.after(seconds, a_request, client())

    def retry_after(self) -> int:
        """Whole seconds, 1 to 120, until a request like those under way is likely to be let in."""
        with self._lock:
            places = max(0, self._pending + 1 - self.max_requests)
            known = max(1, self._priced)
            excess = self._pending_pixels * (1 + 1 / known) - self.max_pixels
            return self._until_done(max(places * self._pending_seconds / known, self._seconds_of(excess)))

    def _until_done(self, seconds: float) -> int:
        """Whole seconds until so much of what is under way is likely to be done, or all of it.

        Picture work that stands in front lasts as long for who comes back.
        """
        return whole(max(min(seconds, self.pending_seconds) / self._devices, self._ahead()))

    def _seconds_of(self, pixels: float) -> float:
        """Expected seconds of so many of the pixels under way, by their mean."""
        return max(0.0, pixels) * self.pending_seconds / max(1, self._pending_pixels)

    def _reserve(self, ticket: "Ticket", seconds: float, pixels: int, deadline: Deadline) -> None:
        with self._lock:
            if ticket.left:
                raise ClientGoneError("the request has ended before its image was read")
            deadline.check()
            left = deadline.left()
            trusted = self._trusted()
            alone = ticket.seconds + seconds
            if trusted and alone > left:
                raise DeadlineExceededError(
                    f"this request alone takes about {alone:.1f} s, and {left:.1f} s are left of its time; "
                    "send a smaller image or fewer new classes, or raise timeout_ms"
                )
            others = self._pending_pixels - ticket.pixels
            if pixels and others and self._pending_pixels + pixels > self.max_pixels:
                excess = self._pending_pixels + pixels - self.max_pixels
                raise QueueFullError(self._sent_away(self._until_done(self._seconds_of(excess))))
            front = max(0.0, self.pending_seconds - ticket.seconds)
            late = front / self._devices + alone - left
            if trusted and late > 0:
                raise DeadlineUnmeetableError(self._sent_away(max(late, self._ahead())))
            self._priced += not ticket.reserved
            self._pending_pixels += pixels
            self._pending_seconds += seconds
            ticket.pixels += pixels
            ticket.seconds += seconds
            ticket.reserved = True

    def _give_back(self, ticket: "Ticket") -> None:
        with self._lock:
            self._priced -= ticket.reserved
            self._pending_pixels -= ticket.pixels
            self._pending_seconds -= ticket.seconds
            if not self._priced:
                self._pending_seconds = 0.0  # what rounding left
            ticket.pixels, ticket.seconds, ticket.reserved = 0, 0.0, False


class Ticket:
    """A place that `Admission.admit` gives.

    Attributes:
        seconds: of a device that it holds.
        pixels: at network resolution that it holds.
        reserved: whether its cost is known.
        left: whether the place was given back.
    """

    def __init__(self, admission: Admission, memory: HostAccount | None = None):
        self._admission = admission
        self._memory = memory
        self.seconds = 0.0
        self.pixels = 0
        self.reserved = False
        self.left = False

    def __enter__(self) -> Self:
        self._admission._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission._leave(self)

    def reserve(self, seconds: float, deadline: Deadline, *, pixels: int = 0) -> None:
        """Reserves device seconds and network pixels, on top of those that this ticket has.

        Raises:
            QueueFullError: too many pixels are under way.
            DeadlineUnmeetableError: what is under way leaves too little of the request's time.
            DeadlineExceededError: even alone it would take longer than is left.
            ClientGoneError: the place was given back meanwhile.
        """
        self._admission._reserve(self, seconds, pixels, deadline)

    def hold(self, nbytes: int) -> None:
        """Reserves bytes of the host's memory, beside the body's; see `HostAccount.hold`."""
        if self._memory is not None:
            self._memory.hold(nbytes)

    def computed(self) -> None:
        """Gives back what it reserved of devices, which have done their part; the place stays."""
        self._admission._give_back(self)
