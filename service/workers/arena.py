"""Memory that a worker and the engine's process share: pictures on their way in, label maps on their way out.

The worker gives pieces of it out and takes them back; the engine's process looks at what it is told of. It is
a file without a name, so that it is gone with its last process, and a page of it takes no memory before
it is written to.
"""

import mmap
import os
import threading
from bisect import insort
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import PictureMemoryError

KEPT = 64 << 20  # bytes whose pages stay when nothing is in use
_ALIGNED = mmap.PAGESIZE
ArrayPlace = tuple[int, list[int], str]  # offset, shape, name of the number type


class Arena:
    """The memory, as either process has it.

    Args:
        file: of `new_arena`.
    """

    def __init__(self, file: int):
        self._map = mmap.mmap(file, os.fstat(file).st_size)
        self._blocks: list[tuple[int, int]] = []  # offset and bytes of what is in use, in order
        self._highest = 0  # that was in use since pages were given back
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> int:
        """Gives out so many bytes; where they begin. For any thread of the worker.

        Raises:
            PictureMemoryError: there are not so many in one piece.
        """
        wanted = -(-max(1, nbytes) // _ALIGNED) * _ALIGNED
        with self._lock:
            at = 0
            for start, size in self._blocks:
                if start - at >= wanted:
                    break
                at = start + size
            if at + wanted > len(self._map):
                raise PictureMemoryError
            insort(self._blocks, (at, wanted))
            self._highest = max(self._highest, at + wanted)
        return at

    def give_back(self, offset: int) -> None:
        """Takes back what begins there, and the pages of a burst when it is over."""
        with self._lock:
            self._blocks = [block for block in self._blocks if block[0] != offset]
            if not self._blocks and self._highest > KEPT:
                self._map.madvise(mmap.MADV_REMOVE, KEPT, self._highest - KEPT)
                self._highest = 0

    def array(self, place: ArrayPlace) -> NDArray[Any]:
        """What lies at a place, without a copy."""
        offset, shape, kind = place
        flat = np.frombuffer(self._map, kind, count=prod(shape), offset=offset)
        return flat.reshape(shape)

    def put(self, offset: int, end: int, arrays: Sequence[NDArray[Any]]) -> list[ArrayPlace]:
        """Writes arrays one behind the other; where they are.

        Raises:
            ValueError: they do not fit before `end`.
        """
        places: list[ArrayPlace] = []
        for array in arrays:
            if offset + array.nbytes > end:
                raise ValueError("more was computed than there was room for")
            places.append((offset, list(array.shape), array.dtype.str))
            self.array(places[-1])[...] = array
            offset += -(-array.nbytes // 64) * 64
        return places


def new_arena(nbytes: int) -> int:
    """A file for an arena; none of its bytes takes memory yet."""
    file = os.memfd_create("ebseg-pictures")
    os.ftruncate(file, -(-nbytes // _ALIGNED) * _ALIGNED)
    return file


def room_for(pixels: int, scored: int) -> int:
    """Bytes of a label map, its confidence, and the scores of so many classes."""
    return pixels * (2 + 4 + 2 * scored) + 4 * 64
