"""The processes of a run: one, or several under torchrun, with gloo on CPUs and nccl on GPUs."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from model.network.device import AUTO, device_named
from training.errors import TrainingError

# The others wait while the first process evaluates; torchrun itself ends all of them when one dies.
LONGEST_WAIT = datetime.timedelta(hours=6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """Where this process stands.

    Attributes:
        rank: its number; the first, 0, writes files and shows progress.
        count: of all processes.
        device: that it computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def slots(self, batch: int, parts: int) -> slice:
        """Slots of the batch that are this process's.

        Raises:
            TrainingError: the batch cannot be shared out evenly.
        """
        if batch % (self.count * parts):
            raise TrainingError(
                f"batch {batch} cannot be shared by {self.count} processes in {parts} parts each (accumulate)"
            )
        own = batch // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a tensor over all processes; in place."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def sum(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum of counts over all processes."""
        if self.count == 1:
            return counts
        total = torch.from_numpy(counts).to(self.device, copy=True)
        dist.all_reduce(total)
        return total.cpu().numpy()

    def gathered(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes(device: str = AUTO) -> Iterator[Processes]:
    """Joins the other processes where torchrun started this one; alone otherwise.

    Args:
        device: torch's name, or "auto"; of several processes each takes the GPU of its own number.

    Raises:
        ModelError: this machine has it not.
        TrainingError: several processes, and one GPU.
    """
    started = dist.is_torchelastic_launched() and not dist.is_initialized()
    several = started or dist.is_initialized()
    # of several processes none may touch another one's GPU, which `device_named` would
    cuda = torch.cuda.is_available() if device == AUTO else device.startswith("cuda")
    if several and ":" in device:
        raise TrainingError(f"several processes take a GPU each, --device cuda; {device} names one")
    if started:
        dist.init_process_group("nccl" if cuda else "gloo", init_method="env://", timeout=LONGEST_WAIT)
    try:
        rank, count = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
        own = device_named(f"cuda:{dist.get_node_local_rank(0)}" if several and cuda else device)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        yield Processes(rank=rank, count=count, device=own)
    finally:
        if started:
            dist.destroy_process_group()
