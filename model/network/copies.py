"""Copies between host and device for which neither stands still.

A plain copy makes the host wait until the device has done all that it was asked before. Here tensors go
through pinned memory, on a stream of their own: what is computed next waits for what was uploaded, on the
device; the host waits once, for what it downloads. Not yet run on a GPU.
"""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

ALIGNED_BYTES = 16  # every number type may begin there
SMALLEST_BYTES = 2**16  # of pinned memory; larger ones by powers of two, so that a buffer serves many sizes
BUFFERS = 2  # for uploads: one is filled while the other is copied


class Mark(Protocol):
    """A point among the copies of a device."""

    def wait(self) -> None:
        """Lets the host wait until it is reached."""


class Streams(Protocol):
    """What copies of one direction need of a device: a stream for them beside that which computes."""

    def pinned(self, nbytes: int) -> Tensor:
        """Memory of the host that copies may read and write while the host goes on, uint8."""

    def empty(self, nbytes: int) -> Tensor:
        """Memory of the device for a copy to be made into, uint8."""

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copies when the copies before are done; at once, for the host."""

    def mark(self) -> Mark:
        """Is reached when all copies so far are done."""

    def compute_after(self, mark: Mark) -> None:
        """What is computed from here on waits for a mark; the host does not."""

    def copy_after_compute(self) -> None:
        """Copies from here on wait for what is computed so far; the host does not."""


class CudaStreams:
    """An NVIDIA GPU's.

    Args:
        device: with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)

    def pinned(self, nbytes: int) -> Tensor:
        """Memory of the host, pinned."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def empty(self, nbytes: int) -> Tensor:
        """Memory that no kernel still uses: of the copies' own stream."""
        with torch.cuda.stream(self._copies):
            return torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """On the copies' stream, which has to be done with the tensors before their memory serves again."""
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=True)
        for tensor in (target, source):
            if tensor.is_cuda:
                tensor.record_stream(self._copies)
                tensor.record_stream(torch.cuda.current_stream(self._device))

    def mark(self) -> Mark:
        """An event of the copies' stream."""
        # a host that waits for it sleeps instead of spinning: the other threads need the processor
        event = torch.cuda.Event(blocking=True)
        event.record(self._copies)
        return _CudaMark(event)

    def compute_after(self, mark: Mark) -> None:
        """The current stream waits."""
        assert isinstance(mark, _CudaMark)
        torch.cuda.current_stream(self._device).wait_event(mark.event)

    def copy_after_compute(self) -> None:
        """The copies' stream waits."""
        self._copies.wait_stream(torch.cuda.current_stream(self._device))


class _CudaMark:
    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def wait(self) -> None:
        self.event.synchronize()


STREAMS: dict[str, Callable[[torch.device], Streams]] = {"cuda": CudaStreams}  # others copy plainly


class Download:
    """Tensors on their way to the host.

    Args:
        finish: waits, and gives them.
    """

    def __init__(self, finish: Callable[[], list[Tensor]]) -> None:
        self._finish: Callable[[], list[Tensor]] | None = finish
        self._tensors: list[Tensor] = []

    def wait(self) -> list[Tensor]:
        """The tensors in the host's memory, once they are there."""
        if self._finish is not None:
            self._tensors, self._finish = self._finish(), None
        return self._tensors


class Copies:
    """Copies of one device, for any thread.

    Args:
        device: whose.
        make: gives streams of the device; None copies plainly, and on a CPU nothing.
    """

    def __init__(self, device: torch.device, make: "Callable[[torch.device], Streams] | None") -> None:
        self._device = device
        # apart: downloads wait for what is computed, and what is needed next is uploaded meanwhile
        self._uploads = None if make is None else make(device)
        self._downloads = None if make is None else make(device)
        self._lock = threading.Lock()
        self._filled: list[tuple[Tensor, Mark]] = []  # pinned, oldest first, each until its mark
        self._free: list[Tensor] = []  # pinned, of downloads that have arrived

    def upload(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same on the device, in one copy; tensors that are there already stay as they are."""
        if self._uploads is None:
            return [tensor.to(self._device) for tensor in tensors]
        away = [tensor for tensor in tensors if tensor.device != self._device]
        with torch.inference_mode(False), torch.no_grad():  # buffers outlive the mode that is on now
            arrived = iter(self._uploaded(away, self._uploads) if away else [])
        return [next(arrived) if tensor.device != self._device else tensor for tensor in tensors]

    def download(self, tensors: Sequence[Tensor]) -> Download:
        """Begins to copy tensors to the host; what is computed afterwards does not change them."""
        if self._downloads is None:
            return Download(lambda: [tensor.cpu() for tensor in tensors])
        with torch.inference_mode(False), torch.no_grad():
            return self._downloading([tensor.detach().contiguous() for tensor in tensors], self._downloads)

    def settle(self) -> None:
        """Lets the host wait until all is done that the device was asked for."""
        if self._downloads is not None:
            with self._lock:
                self._downloads.copy_after_compute()
                mark = self._downloads.mark()
            mark.wait()

    def _uploaded(self, tensors: list[Tensor], streams: Streams) -> list[Tensor]:
        places, nbytes = _places(tensors)
        with self._lock:
            pinned = self._pinned_for_upload(nbytes, streams)
            for tensor, place in zip(tensors, places, strict=True):
                _part(pinned, place, tensor).copy_(tensor)
            arrived = streams.empty(nbytes)
            streams.copy(arrived, pinned[:nbytes])
            mark = streams.mark()
            self._filled.append((pinned, mark))
            streams.compute_after(mark)
        return [_part(arrived, place, tensor) for tensor, place in zip(tensors, places, strict=True)]

    def _pinned_for_upload(self, nbytes: int, streams: Streams) -> Tensor:
        if len(self._filled) < BUFFERS:
            return streams.pinned(_rounded(nbytes))
        pinned, mark = self._filled.pop(0)
        mark.wait()  # the copy before the last one: as a rule it is over
        return pinned if len(pinned) >= nbytes else streams.pinned(_rounded(nbytes))

    def _downloading(self, tensors: list[Tensor], streams: Streams) -> Download:
        places, nbytes = _places(tensors)
        with self._lock:
            pinned = next((buffer for buffer in self._free if len(buffer) >= nbytes), None)
            if pinned is None:
                self._free.clear()  # all too small
                pinned = streams.pinned(_rounded(nbytes))
            else:
                self._free = [buffer for buffer in self._free if buffer is not pinned]
            streams.copy_after_compute()
            for tensor, place in zip(tensors, places, strict=True):
                streams.copy(_part(pinned, place, tensor), tensor)
            mark = streams.mark()

        def finish() -> list[Tensor]:
            mark.wait()
            arrived = [_part(pinned, place, x).clone() for x, place in zip(tensors, places, strict=True)]
            with self._lock:
                self._free = [*self._free, pinned][-BUFFERS:]
            return arrived

        return Download(finish)


def _places(tensors: Sequence[Tensor]) -> tuple[list[int], int]:
    """Where tensors begin in one piece of memory, and its bytes."""
    places, end = [], 0
    for tensor in tensors:
        places.append(end)
        end += -(-tensor.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
    return places, max(end, ALIGNED_BYTES)


def _part(memory: Tensor, place: int, like: Tensor) -> Tensor:
    """A piece of memory as a tensor of another's shape and type."""
    part: Any = memory[place : place + like.nbytes]
    if not like.nbytes:
        return torch.empty(like.shape, dtype=like.dtype, device=memory.device)
    viewed: Tensor = part.view(like.dtype).view(like.shape)
    return viewed


def _rounded(nbytes: int) -> int:
    return 1 << max(SMALLEST_BYTES.bit_length() - 1, math.ceil(math.log2(nbytes)))


_COPIES: dict[torch.device, Copies] = {}
_COPIES_LOCK = threading.Lock()


def copies_of(device: torch.device) -> Copies:
    """The copies of a device, one for all who use it."""
    if device.index is None and device.type in STREAMS:
        device = torch.empty(0, device=device).device  # the one that is current
    with _COPIES_LOCK:
        found = _COPIES.get(device)
        if found is None:
            found = _COPIES[device] = Copies(device, STREAMS.get(device.type))
        return found


def download(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one device in the host's memory; the host waits once."""
    return copies_of(tensors[0].device).download(tensors).wait() if tensors else []


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """One tensor on a device."""
    return copies_of(device).upload([tensor])[0]
