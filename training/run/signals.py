"""SIGTERM and SIGINT as a request to stop after the step at hand; a second one ends at once.

A signal that whoever started this process has it ignore stays ignored: shells do that with SIGINT for what
runs in the background.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Which signal came first, 0 before any has."""

    def __init__(self) -> None:
        self.signal = 0


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Catches the two signals for a while, if this is the main thread; no other thread may."""
    stop_request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop_request
        return

    def note(number: int, _: FrameType | None) -> None:
        stop_request.signal = number
        signal.signal(number, former[signal.Signals(number)])

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    former = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    for number in former:
        signal.signal(number, note)
    try:
        yield stop_request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
