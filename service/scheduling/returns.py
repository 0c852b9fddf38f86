"""When those who were sent away are to come back: not all of them in one moment.

A thousand clients that are all told "in 1 s" are here again together a second later, and while they are sent
away once more nobody else is answered. So each takes a moment of its own behind those before it, and comes
back by so much later. One that asks again at once, and again, soon takes moments that delay itself alone.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

LONGEST_RETRY_S = 120  # nobody should be sent away for longer
LONGEST_SPREAD_S = (
    10.0  # nor for so much longer than until there is room, since of the others some never return
)
SHARE_S = 1.0  # of moments that one client takes of everybody's time at once
MOMENT_S = 0.01  # of one who comes back, at most: to send a hundred away a second is cheap
_MOST_CLIENTS = 1024  # whose moments are remembered


class Returns:
    """The moments that are taken. For any thread.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._taken_until = -math.inf
        self._own: OrderedDict[str, float] = OrderedDict()  # until when, by client, the last one at the end

    def after(self, wait_s: float, request_s: float = 0.0, client: str = "") -> int:
        """Takes the next moment.

        Args:
            wait_s: seconds until there is likely to be room.
            request_s: seconds between two requests that are done; 0 if unknown. Moments are half as long at
                most, so that spreading leaves no place empty.
            client: who is sent away. What it takes beyond its share lies behind everybody's moments, and
                moves nobody else's.

        Returns:
            Whole seconds, 1 to 120.
        """
        with self._lock:
            now = self._clock()
            moment = min(MOMENT_S, request_s / 2) or MOMENT_S
            own = max(self._own.pop(client, now), now) - now
            taken = max(self._taken_until, now) - now
            self._own[client] = now + min(own + moment, LONGEST_SPREAD_S)
            if len(self._own) > _MOST_CLIENTS:
                self._own.popitem(last=False)
            if own < SHARE_S:
                self._taken_until = now + min(taken + moment, LONGEST_SPREAD_S)
            later = min(max(own, taken + max(0.0, own - SHARE_S)), LONGEST_SPREAD_S)
        return min(whole(wait_s) + math.floor(later), LONGEST_RETRY_S)


def whole(seconds: float) -> int:
    """Whole seconds, 1 to 120, of a time to wait."""
    return min(max(1, math.ceil(seconds)), LONGEST_RETRY_S)
