"""So many bytes of a crowd a turn of the event loop, that its timers and everybody's answers are not late.

What a thousand clients send in one moment is all there in the loop's next turn, which would parse it and
begin a thousand requests before it looks at anything else.
"""

import asyncio
import time
from typing import Protocol

MOST_A_TURN = 24  # connections that are heard; sent away, their requests take some 10 ms


class Hearer(Protocol):
    """A connection."""

    def hear(self, data: bytes, arrived: float) -> None:
        """Takes bytes that arrived then, by `time.monotonic()`."""

    def be_deaf(self) -> None:
        """Takes nothing from the peer any more."""

    def listen_again(self) -> None:
        """Takes from the peer again."""

    def break_off(self) -> None:
        """Ends at once: hearing failed."""


class Turns:
    """Lets connections be heard at once while they are few, and else in the order that they came.

    Args:
        most: connections that are heard in one turn of the event loop.
    """

    def __init__(self, most: int = MOST_A_TURN):
        self._most = most
        self._heard = 0  # in this turn
        self._counting = False  # whether the next turn will begin anew
        self._waiting: dict[Hearer, tuple[bytes, float]] = {}

    def take(self, hearer: Hearer, data: bytes) -> None:
        """Has it hear this now, or in one of the next turns; until then it is not read from."""
        if not self._counting:
            self._counting = True
            self._heard = 0
            asyncio.get_running_loop().call_soon(self._next)
        if self._heard < self._most and not self._waiting:
            self._heard += 1
            hearer.hear(data, time.monotonic())
        elif hearer in self._waiting:
            before, arrived = self._waiting[hearer]
            self._waiting[hearer] = before + data, arrived
        else:
            self._waiting[hearer] = data, time.monotonic()
            hearer.be_deaf()

    def forget(self, hearer: Hearer) -> tuple[bytes, float] | None:
        """Takes out what it sent, and when that arrived; None if nothing of it waits."""
        return self._waiting.pop(hearer, None)

    def _next(self) -> None:
        self._heard = 0
        self._counting = bool(self._waiting)
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next)
        while self._waiting and self._heard < self._most:
            self._heard += 1
            hearer = next(iter(self._waiting))
            data, arrived = self._waiting.pop(hearer)
            hearer.listen_again()
            try:
                hearer.hear(data, arrived)
            except Exception:
                hearer.break_off()
                raise
