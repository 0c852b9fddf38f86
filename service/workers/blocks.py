"""The pieces of the arena that one request has: each is given back once nobody writes to it any more."""

import threading

from service.workers.arena import Arena


class Blocks:
    """For any thread.

    Args:
        arena: whose pieces.
    """

    def __init__(self, arena: Arena):
        self._arena = arena
        self._lock = threading.Lock()
        self._filling: set[int] = set()  # somebody writes to them, or the other process reads
        self._filled: set[int] = set()  # somebody may read them
        self._closed = False

    def take(self, nbytes: int) -> int:
        """A piece that is about to be written to; where it begins. Errors as of `Arena.take`."""
        start = self._arena.take(nbytes)
        with self._lock:
            self._filling.add(start)
        return start

    def lend(self, start: int) -> None:
        """One that is filled is read by the other process until `filled` is called again."""
        with self._lock:
            self._filled.discard(start)
            self._filling.add(start)

    def filled(self, *starts: int) -> None:
        """Nobody writes to them any more, or the other process reads them no more."""
        with self._lock:
            self._filling.difference_update(starts)
            if not self._closed:
                self._filled.update(starts)
                return
        for start in starts:
            self._arena.give_back(start)

    def close(self) -> None:
        """The request has ended; what is in use yet is given back when that ends."""
        with self._lock:
            self._closed = True
            done, self._filled = self._filled, set()
        for start in done:
            self._arena.give_back(start)
