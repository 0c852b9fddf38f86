"""When those who were sent away are to come back: not all of them in one moment.

A thousand clients that are all told "in 1 s" are here again together a second later, and while they are sent
away once more nobody else is answered. So each takes a moment of its own behind those before it, and comes
back by so much later.
"""

import math
import time
from collections.abc import Callable

LONGEST_RETRY_S = 120  # nobody should be sent away for longer
LONGEST_SPREAD_S = (
    10.0  # nor for so much longer than until there is room, since of the others some never return
)
MOMENT_S = 0.01  # of one who comes back, at most: to send a hundred away a second is cheap


class Returns:
    """The moments that are taken. Not for several threads at once.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._taken_until = -math.inf

    def after(self, wait_s: float, request_s: float = 0.0) -> int:
        """Takes the next moment.

        Args:
            wait_s: seconds until there is likely to be room.
            request_s: seconds between two requests that are done; 0 if unknown. Moments are half as long at
                most, so that spreading leaves no place empty.

        Returns:
            Whole seconds, 1 to 120.
        """
        now = self._clock()
        taken = max(self._taken_until, now)
        self._taken_until = min(taken + (min(MOMENT_S, request_s / 2) or MOMENT_S), now + LONGEST_SPREAD_S)
        return min(whole(wait_s) + math.floor(taken - now), LONGEST_RETRY_S)


def whole(seconds: float) -> int:
    """Whole seconds, 1 to 120, of a time to wait."""
    return min(max(1, math.ceil(seconds)), LONGEST_RETRY_S)
