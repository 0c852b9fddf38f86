"""Which predictions the engine's process is likely to keep, in memory that all processes share.

A worker reads there that a picture is new, as most are, and asks nobody. A place has one key: who comes
later takes it, and what is dropped stays. So it may be wrong either way, and the engine's process has the
last word.
"""

import mmap
import os

from service.workers.counts import WORD

_PLACES = 1 << 16


class KeptKeys:
    """For any thread of any process; one of them notes, the others look.

    Args:
        file: of `new_kept`.
    """

    def __init__(self, file: int):
        self._words = memoryview(mmap.mmap(file, WORD * _PLACES)).cast("Q")

    def note(self, key: bytes) -> None:
        """A prediction is kept under it from now on."""
        place, word = _of(key)
        self._words[place] = word

    def likely(self, key: bytes) -> bool:
        """Whether one is kept, as far as is known here."""
        place, word = _of(key)
        return self._words[place] == word


def new_kept() -> int:
    """A file for the keys; nothing is kept."""
    file = os.memfd_create("ebseg-kept")
    os.ftruncate(file, WORD * _PLACES)
    return file


def _of(key: bytes) -> tuple[int, int]:
    """The place of a key, which ends in a digest, and what stands there for it: never 0."""
    word = int.from_bytes(key[-WORD:], "big")
    return word % _PLACES, word | 1 << 63
