"""How many pictures a device's memory holds: measured at warm-up, per padded shape.

Half of the pictures that ran out is the next try whatever is said here (`BatchLimits`); this sees to it that
memory runs out no second time, and at warm-up as a rule no first time.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
Shape = tuple[int, int]

SPARE = 0.9  # of the free memory is used: an allocator's pieces do not fit everywhere
LOOK_AGAIN = 32  # batches after which the free memory is looked at again
_MOST_SHAPES = 64  # that are remembered, those measured last
UNBOUNDED = 2**31  # pictures, where memory is the host's


class DeviceMemory(Protocol):
    """What is asked of a device's memory."""

    def free(self) -> int:
        """Bytes that tensors may still take."""

    def taken(self) -> int:
        """Bytes of all tensors there are."""

    def begin(self) -> None:
        """`peak` counts from here on."""

    def peak(self) -> int:
        """The most that `taken` has been since."""


class CudaMemory:
    """An NVIDIA GPU's. Not yet run on one.

    Args:
        device: with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """What the driver has left, and what torch's allocator keeps unused."""
        left, _ = torch.cuda.mem_get_info(self._device)
        return left + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def taken(self) -> int:
        """As torch's allocator counts."""
        return torch.cuda.memory_allocated(self._device)

    def begin(self) -> None:
        """Resets the allocator's peak."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """The allocator's."""
        return torch.cuda.max_memory_allocated(self._device)


MEMORY: dict[str, Callable[[torch.device], DeviceMemory]] = {"cuda": CudaMemory}  # others have no bound


class Room:
    """Pictures of each padded shape that a device holds at a time; one thread measures, any may ask.

    Args:
        memory: of the device; None has no bound.
    """

    def __init__(self, memory: DeviceMemory | None) -> None:
        self._memory = memory
        self._bytes: OrderedDict[Shape, int] = OrderedDict()  # of a picture
        self._free = 0
        self._batches = LOOK_AGAIN  # since the free memory was looked at

    @classmethod
    def of(cls, device: torch.device) -> "Room":
        """A device's; on a CPU memory is the host's, which admission bounds."""
        make = MEMORY.get(device.type)
        return cls(None if make is None else make(device))

    def measure(self, shape: Shape, pictures: int, run: Callable[[], T]) -> T:
        """Runs a batch, and notes what a picture of it takes at its most."""
        memory = self._memory
        if memory is None:
            return run()
        before = memory.taken()
        memory.begin()
        done = run()
        self._note(shape, -(-(memory.peak() - before) // pictures))
        self._batches = LOOK_AGAIN
        return done

    def most(self, shape: Shape) -> int:
        """The most pictures of a padded shape that fit beside what is there, at least 1.

        A shape that was never measured takes what its nearest larger one does, or by its pixels, squared,
        more than the largest: attention over a picture may grow so.
        """
        memory = self._memory
        if memory is None or not self._bytes:
            return UNBOUNDED
        if self._batches >= LOOK_AGAIN:
            self._free, self._batches = memory.free(), 0
        return max(1, int(SPARE * self._free) // max(1, self._of(shape)))

    def free(self) -> int | None:
        """Bytes that are free now; None where there is no bound."""
        return None if self._memory is None else self._memory.free()

    def ran(self) -> None:
        """Notes that a batch ran."""
        self._batches += 1

    def ran_out(self, shape: Shape, pictures: int) -> None:
        """Notes that so many pictures did not fit; what is free is looked at when next asked for."""
        if self._bytes and self.most(shape) >= pictures:  # what was measured was too little
            self._note(shape, int(SPARE * self._free) // pictures + 1)
        self._batches = LOOK_AGAIN

    def _note(self, shape: Shape, nbytes: int) -> None:
        self._bytes[shape] = max(nbytes, self._bytes.get(shape, 1))
        self._bytes.move_to_end(shape)
        if len(self._bytes) > _MOST_SHAPES:
            self._bytes.popitem(last=False)

    def _of(self, shape: Shape) -> int:
        known = self._bytes.get(shape)
        if known is not None:
            return known
        measured = sorted((rows * columns, nbytes) for (rows, columns), nbytes in list(self._bytes.items()))
        pixels = shape[0] * shape[1]
        for own, nbytes in measured:
            if own >= pixels:
                return nbytes
        own, nbytes = measured[-1]
        return int(nbytes * (pixels / own) ** 2)
