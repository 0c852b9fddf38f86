"""What a connection knows of its request beyond ASGI: whether its body is here, whether its client left.

Who asks waits for nothing that is at hand, and needs no task that waits for the end of a connection.
"""

from collections.abc import Callable
from typing import Any, Protocol

from starlette.types import Scope

_KEY = "arrival"  # in a request's state


class Exchange(Protocol):
    """A request and its response, as uvicorn has them."""

    more_body: bool
    disconnected: bool


class Arrival:
    """One request on its way in. For the event loop's thread.

    Args:
        exchange: the request.
    """

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self._notify: Callable[[], object] | None = None

    @property
    def complete(self) -> bool:
        """Whether all of the body is here, so that `receive` does not wait for the rest of it."""
        return not self._exchange.more_body or self._exchange.disconnected

    def watch(self, notify: Callable[[], object] | None) -> None:
        """Has somebody notified when the client goes, at once if it has gone; None: nobody any more."""
        self._notify = notify
        if self._exchange.disconnected:
            self.gone()

    def gone(self) -> None:
        """The client has gone."""
        notify, self._notify = self._notify, None
        if notify is not None:
            notify()


def put_arrival(state: dict[str, Any], arrival: Arrival) -> None:
    """Leaves it with a request's state."""
    state[_KEY] = arrival


def arrival_of(scope: Scope) -> Arrival | None:
    """That of a request; None where another server than `edge.py`'s has its connection."""
    found: Arrival | None = scope.get("state", {}).get(_KEY)
    return found
