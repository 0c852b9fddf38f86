"""Who is connected: how many in all and from one address, who waits, and a regular look at all of them."""

import asyncio
from collections import Counter
from typing import Protocol

from service.caller import site_of
from service.errors import TooManyConnectionsError
from service.observability.metrics import Metrics
from service.settings import Settings

MOST_REFUSED = 128  # connections that get to read why they have to go; further ones are just closed
LOOKS = 8  # at a connection within the shortest of its times
_LONGEST_PAUSE = 1.0  # seconds between two looks


class Member(Protocol):
    """A connection, as far as the others are concerned."""

    def look(self, now: float) -> None:
        """Ends what has taken too long; `now` is of the event loop."""

    def make_room(self) -> None:
        """Goes, since it has nothing to do and others wait."""


class Connections:
    """All connections of one server.

    Args:
        settings: with the limits.
        metrics: where they are counted.
        most: at a time.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, most: int):
        self.most = most
        self.most_of_one = settings.max_connections_per_address
        self.metrics = metrics
        shortest = min(settings.header_timeout_s, settings.answer_timeout_s, settings.stall_s)
        self._pause = min(_LONGEST_PAUSE, shortest / LOOKS)
        self._members: dict[Member, str] = {}  # in the order that they came, each with its address
        self._idle: dict[Member, None] = {}  # those without a request, the longest one first
        self._refused: set[Member] = set()
        self._of_one: Counter[str] = Counter()
        self._next_look: asyncio.TimerHandle | None = None
        metrics.connections.set_function(lambda: len(self._members))

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member, host: str | None) -> None:
        """Takes a connection in, if need be in the place of the one that has been without a request longest.

        Args:
            member: the connection.
            host: its address; None for one that has none.

        Raises:
            TooManyConnectionsError: there is no place.
        """
        address = site_of(host)
        if self.most_of_one and self._of_one[address] >= self.most_of_one:
            raise TooManyConnectionsError(
                f"there are {self.most_of_one} connections from your address already", "address-full"
            )
        if len(self._members) >= self.most:
            if not self._idle:
                raise TooManyConnectionsError("the service has as many connections as it takes", "full")
            next(iter(self._idle)).make_room()
        self._members[member] = address
        self._of_one[address] += 1
        self._idle[member] = None
        self._look_later()

    def remove(self, member: Member) -> None:
        """Forgets a connection."""
        self._idle.pop(member, None)
        self._refused.discard(member)
        address = self._members.pop(member, None)
        if address is not None:
            self._of_one[address] -= 1
            if not self._of_one[address]:
                del self._of_one[address]

    def refuse(self, member: Member) -> bool:
        """Moves a connection to those that get to read why they have to go; False if these are too many."""
        self.remove(member)
        if len(self._refused) >= MOST_REFUSED:
            return False
        self._refused.add(member)
        self._look_later()
        return True

    def idle(self, member: Member) -> None:
        """Notes that a connection has no request now."""
        if member in self._members:
            self._idle[member] = None

    def busy(self, member: Member) -> None:
        """Notes that a connection has one."""
        self._idle.pop(member, None)

    def ended(self, reason: str) -> None:
        """Counts a connection that was ended before its client wanted that."""
        self.metrics.count(self.metrics.connections_ended, reason)

    def _look_later(self) -> None:
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        self._next_look = None
        now = asyncio.get_running_loop().time()
        try:
            for member in [*self._members, *self._refused]:
                member.look(now)
        finally:
            if self._members or self._refused:
                self._look_later()
