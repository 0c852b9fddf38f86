"""Recordings of the pretended accelerator: as strict as a GPU's graphs are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import ref

import torch
from torch import Tensor

from model.network.graphs import RECORDERS, Forward, Outputs
from tests.pretended import NAME, counted


class PretendedGraph:
    """Refuses a network that waits; a replay writes over what the one before gave.

    Attributes:
        replays: of all graphs, pictures of each.
    """

    replays: ClassVar[list[int]] = []

    def __init__(self, forward: Forward, images: Tensor, sizes: Tensor) -> None:
        self._images, self._sizes = images.clone(), sizes.clone()
        with counted() as counts:
            self._outputs = forward(self._images, self._sizes)
        if counts.waits:
            raise RuntimeError(f"operation not permitted when stream is capturing: {counts.waits}")
        self._forward: Callable[[], Any] = ref(forward)

    def replay(self, images: Tensor, sizes: Tensor) -> Outputs:
        self.replays.append(len(images))
        self._images.copy_(images)
        self._sizes.copy_(sizes)
        for output, again in zip(self._outputs, self._forward()(self._images, self._sizes), strict=True):
            output.copy_(again)
        return tuple(output.clone() for output in self._outputs)


@contextmanager
def pretended_graphs() -> Iterator[type[PretendedGraph]]:
    """The pretended device records meanwhile."""
    PretendedGraph.replays = []
    RECORDERS[NAME] = PretendedGraph
    try:
        with torch.inference_mode(False):
            yield PretendedGraph
    finally:
        del RECORDERS[NAME]
