"""The network recorded for a padded shape and a number of pictures, and replayed with one launch.

A GPU is asked some two thousand times for one `predict`, which takes the host longer than the GPU computes.
A recording (a CUDA graph) asks once. Sizes that were not recorded, and devices that record nothing, run
eagerly. Not yet run on a GPU.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

LOG = logging.getLogger(__name__)
Outputs = tuple[Tensor, ...]
Forward = Callable[[Tensor, Tensor], Outputs]
Key = tuple[int, int, int]  # pictures, rows, columns


_POOLS: dict[torch.device, Any] = {}


class Recording(Protocol):
    """The network for one number of pictures and one shape."""

    def replay(self, images: Tensor, sizes: Tensor) -> Outputs:
        """What `forward` gives for these, in tensors of the caller's own."""


class CudaGraph:
    """A CUDA graph. All share one pool of memory, since they run one after the other.

    Args:
        forward: the network. It has run with such pictures, so that libraries are loaded and tables made.
        images, sizes: as `EBSeg.forward` has them.
    """

    def __init__(self, forward: Forward, images: Tensor, sizes: Tensor) -> None:
        self._images, self._sizes = images.clone(), sizes.clone()
        pool = _POOLS.get(images.device)
        if pool is None:
            pool = _POOLS[images.device] = torch.cuda.graph_pool_handle()
        self._graph = torch.cuda.CUDAGraph()
        # other devices' threads go on meanwhile
        recording = torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local")
        with torch.cuda.device(images.device), recording:
            self._outputs = forward(self._images, self._sizes)

    def replay(self, images: Tensor, sizes: Tensor) -> Outputs:
        """One launch, and a copy of each input and output: the next replay writes over those of the graph."""
        self._images.copy_(images)
        self._sizes.copy_(sizes)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


RECORDERS: dict[str, Callable[[Forward, Tensor, Tensor], Recording]] = {"cuda": CudaGraph}  # others: none


class Graphs(nn.Module):
    """The recordings of a network; one thread at a time records and replays.

    A module of its owner's without weights, so that torch tells it what ends them: the owner moves, or loads
    weights. A copy of the owner begins with none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[Key, tuple[Recording, object]] = {}
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def counts(self, shape: tuple[int, int]) -> list[int]:
        """Numbers of pictures that are recorded for a padded shape, the largest first."""
        return sorted((count for count, *rest in self._kept if tuple(rest) == shape), reverse=True)

    def record(self, forward: Forward, images: Tensor, sizes: Tensor, holds: object) -> bool:
        """Records the network for pictures like these; whether it could be.

        Args:
            forward: the network.
            images, sizes: uint8 [B, 3, rows, columns] of a padded shape, and [B, 2]; on the device. The
                network has run with them.
            holds: kept as long as the recording: tables that it reads, and that somebody else might free.
        """
        try:
            recording = RECORDERS[images.device.type](forward, images, sizes)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            LOG.warning("%s cannot be recorded, and runs eagerly: %s", _named(images), error)
            return False
        self._kept[_key(images)] = recording, holds
        return True

    def run(self, forward: Forward, images: Tensor, sizes: Tensor) -> Outputs:
        """`forward`, by recordings as far as there are some: seven pictures as four, two and one."""
        counts = self.counts((images.shape[2], images.shape[3]))
        parts: list[Outputs] = []
        done = 0
        while done < len(images):
            count = next((own for own in counts if own <= len(images) - done), len(images) - done)
            some, extents = images[done : done + count], sizes[done : done + count]
            kept = self._kept.get(_key(some))
            parts.append(forward(some, extents) if kept is None else kept[0].replay(some, extents))
            done += count
        return parts[0] if len(parts) == 1 else tuple(torch.cat(own) for own in zip(*parts, strict=True))

    def forget(self) -> None:
        """Drops all recordings."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> tuple[type["Graphs"], tuple[()]]:
        return Graphs, ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Graphs":
        self.forget()
        return cast(Graphs, super()._apply(fn, recurse))  # type: ignore[no-untyped-call]


def _forget(module: nn.Module, _: object) -> None:
    assert isinstance(module, Graphs)
    module.forget()


def _key(images: Tensor) -> Key:
    return len(images), images.shape[2], images.shape[3]


def _named(images: Tensor) -> str:
    return f"predict of {len(images)} images of {images.shape[2]} x {images.shape[3]}"
