"""Memory of the pretended accelerator: counted by storages, and ending where a test says."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from service.scheduling.device_memory import MEMORY
from tests.pretended import NAME, WATCHERS


class _Share:
    """One tensor's part of a storage; let go of with the tensor."""

    def __init__(self, memory: "PretendedMemory", storage: int, nbytes: int) -> None:
        self._memory, self._storage = memory, storage
        memory.shares[storage] = memory.shares.get(storage, 0) + 1
        if memory.shares[storage] == 1:
            self._nbytes = memory.sizes[storage] = nbytes
            memory.take(nbytes)

    def __del__(self) -> None:
        memory = self._memory
        memory.shares[self._storage] -= 1
        if memory.shares[self._storage] == 0:
            del memory.shares[self._storage]
            memory.used -= memory.sizes.pop(self._storage)


class PretendedMemory:
    """So many bytes.

    Args:
        size: tensors beyond it raise torch.OutOfMemoryError.

    Attributes:
        used, highest: bytes now, and the most since `begin`.
        refused: how often there was none left.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = self.highest = self.refused = 0
        self.shares: dict[int, int] = {}
        self.sizes: dict[int, int] = {}

    def take(self, nbytes: int) -> None:
        """Counts a new storage; raises if it is too much."""
        self.used += nbytes
        if self.used > self.size:
            self.refused += 1
            raise torch.OutOfMemoryError(f"out of memory: {self.used} of {self.size} bytes are wanted")
        self.highest = max(self.highest, self.used)

    def made(self, tensor: Tensor, host: Tensor) -> None:
        """A tensor of the device."""
        storage = host.untyped_storage()
        tensor._share = _Share(self, storage._cdata, storage.nbytes())  # type: ignore[attr-defined]

    def free(self) -> int:
        return self.size - self.used

    def taken(self) -> int:
        return self.used

    def begin(self) -> None:
        self.highest = self.used

    def peak(self) -> int:
        return self.highest


@contextmanager
def pretended_memory(size: int) -> Iterator[PretendedMemory]:
    """Tensors that are made on the device meanwhile share so many bytes."""
    memory = PretendedMemory(size)
    MEMORY[NAME] = lambda device: memory
    WATCHERS.append(memory.made)
    try:
        yield memory
    finally:
        WATCHERS.remove(memory.made)
        del MEMORY[NAME]
