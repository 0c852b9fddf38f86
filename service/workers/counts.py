"""The number of bytes that requests have reserved of the host's memory, as one sum of all processes.

It lies in memory that all share, a row for each process, so that what a process held is given back when it
ends. A lock that the kernel takes from a process which ends guards it.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

WORD = 8  # bytes
_MOST, _RETRY, _OPEN, _CALM, _ROWS = 0, 1, 2, 3, 4
_ROW = 3  # words of a process: what it has reserved, what of it bodies have, and its beats


class SharedCount:
    """A `scheduling.host_memory.Count` of several processes.

    Args:
        file: of `new_count`.
        row: of this process.
        most: bytes in all; None to leave it as it is.
    """

    def __init__(self, file: int, row: int, most: int | None = None):
        self._file = file
        self._words = memoryview(mmap.mmap(file, os.fstat(file).st_size)).cast("q")
        self._row = _ROWS + _ROW * row
        if most is not None:
            self.most = most

    @property
    def most(self) -> int:
        """Bytes that there may be."""
        return self._words[_MOST]

    @most.setter
    def most(self, nbytes: int) -> None:
        self._words[_MOST] = nbytes

    @property
    def retry_after(self) -> int:
        """Seconds until there is likely to be room, as the engine's process said last."""
        return max(1, self._words[_RETRY])

    @retry_after.setter
    def retry_after(self, seconds: int) -> None:
        self._words[_RETRY] = seconds

    @property
    def open(self) -> bool:
        """Whether the service is ready and has a place, as the engine's process said last."""
        return bool(self._words[_OPEN])

    @open.setter
    def open(self, whether: bool) -> None:
        self._words[_OPEN] = whether

    @property
    def calm(self) -> bool:
        """Whether devices have little to do, as the engine's process said last; see `Admission.calm`."""
        return bool(self._words[_CALM])

    @calm.setter
    def calm(self, whether: bool) -> None:
        self._words[_CALM] = whether

    @property
    def reserved(self) -> int:
        """Bytes of all processes."""
        return sum(self._words[_ROWS::_ROW])

    @property
    def arriving(self) -> int:
        """Those of them that bodies on their way have."""
        return sum(self._words[_ROWS + 1 :: _ROW])

    def add(self, change: int) -> None:
        """Adds to this process's own."""
        self._words[self._row] += change

    def add_arriving(self, change: int) -> None:
        """The same of bodies on their way; others' may be read a moment before they change."""
        self._words[self._row + 1] += change

    def beat(self) -> None:
        """Says that this process gets on; to be called again and again."""
        self._words[self._row + 2] += 1

    @property
    def beats(self) -> int:
        """How often this process said so; 0 until it serves."""
        return self._words[self._row + 2]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Keeps all other processes from changing it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def of(self, row: int) -> "SharedCount":
        """The same for another process."""
        return SharedCount(self._file, row)

    def forget(self, row: int) -> None:
        """Gives back what a process held that has ended."""
        with self.whole():
            start = _ROWS + _ROW * row
            self._words[start] = self._words[start + 1] = self._words[start + 2] = 0


def new_count(processes: int) -> int:
    """A file for the counts of so many processes."""
    file = os.memfd_create("ebseg-counts")
    os.ftruncate(file, WORD * (_ROWS + _ROW * processes))
    return file
