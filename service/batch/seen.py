"""Which ids of a list have been before, for an output that has a file a id: eight bytes an id in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]


class SeenIds:
    """Ids in the order of a list, by 64 bits of their digests: among 10^8, odds of 1:3700 for a wrong one."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []  # sorted, and each longer than the next: a few, however many ids

    def again(self, ids: Sequence[str]) -> list[int]:
        """Indices of those that have been before, here or in former calls; from now on all have."""
        digests = b"".join(hashlib.blake2b(id.encode(), digest_size=8).digest() for id in ids)
        hashes = np.frombuffer(digests, np.uint64)
        _, first = np.unique(hashes, return_index=True)
        known = np.ones(len(hashes), bool)
        known[first] = False
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            known |= run[at] == hashes
        self._add(np.sort(hashes[~known]))
        return [int(index) for index in np.flatnonzero(known)]

    def _add(self, run: Hashes) -> None:
        while self._runs and len(self._runs[-1]) <= len(run):
            run = np.sort(np.concatenate((self._runs.pop(), run)))
        if len(run):
            self._runs.append(run)
