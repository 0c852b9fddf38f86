"""Batch sizes, smaller for a while where a batch did not fit into the device's memory."""

import threading
from collections import OrderedDict

from service.scheduling.work import Bucket

_MOST_LIMITS = 64  # buckets whose smaller batch size is remembered
_REGROWTH = 32  # good batches of the smaller size, after which one of twice that size is tried


class BatchLimits:
    """The most pictures of a batch, by engine and shape. For any thread.

    Args:
        largest: for buckets that never ran out of memory.
    """

    def __init__(self, largest: int):
        self._largest = largest
        self._shrunk: OrderedDict[Bucket, tuple[int, int]] = OrderedDict()  # size, good batches of it
        self._lock = threading.Lock()

    def size(self, bucket: Bucket) -> int:
        """The most pictures that a batch of this bucket may hold."""
        with self._lock:
            return self._shrunk[bucket][0] if bucket in self._shrunk else self._largest

    def shrink(self, bucket: Bucket, size: int) -> None:
        """Notes that more than `size` did not fit."""
        with self._lock:
            self._shrunk[bucket] = (size, 0)
            self._shrunk.move_to_end(bucket)
            if len(self._shrunk) > _MOST_LIMITS:
                self._shrunk.popitem(last=False)

    def good(self, bucket: Bucket, size: int) -> None:
        """Notes that a batch of `size` fitted."""
        with self._lock:
            if bucket not in self._shrunk:
                return
            limit, seen = self._shrunk[bucket]
            if size < limit:
                return  # says nothing about larger ones
            if seen + 1 < _REGROWTH:
                self._shrunk[bucket] = (limit, seen + 1)
            elif 2 * limit < self._largest:
                self._shrunk[bucket] = (2 * limit, 0)
            else:
                del self._shrunk[bucket]
