"""How fast a run is, what it waits for and what it holds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.bench.engine import peak_bytes
from model.bench.gpu_card import data_sheet_peak
from model.network.ebseg import EBSeg
from training.config import TrainConfig

TIMES_FORWARD = 3  # a backward pass does about twice the work of its forward pass
PEAK_DTYPES = {"off": "float32", "bfloat16": "bfloat16", "float16": "bfloat16"}  # columns of data sheets
GIB = 2**30


class Pace:
    """Measures from one line of the log to the next; evaluations and saving do not count.

    Args:
        batch: pictures a step, of all processes.
        device: of this process.
        peak_share: fraction of the data sheets' peak that one picture a second is; None where there is none.
    """

    def __init__(self, batch: int, device: torch.device, peak_share: float | None = None):
        self._batch, self._device, self._peak_share = batch, device, peak_share
        self._last_rate: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._steps = 0
        self._away = self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for the next batch."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def away(self) -> Iterator[None]:
        """Around what is no training."""
        began = time.monotonic()
        yield
        self._away += time.monotonic() - began

    def step(self) -> None:
        """Another step is done."""
        self._steps += 1

    @property
    def rate(self) -> float:
        """Pictures a second: of the last whole interval; in the first one so far."""
        return self._last_rate if self._last_rate is not None else self._rate_now()

    def _seconds(self) -> float:
        return max(time.monotonic() - self._began - self._away, 1e-9)

    def _rate_now(self) -> float:
        return self._steps * self._batch / self._seconds()

    def figures(self) -> dict[str, float]:
        """Of the interval that ends here; a new one begins.

        Returns:
            "rate", pictures a second; "data_wait", the share of the time in which no batch was there, 0..1;
            "memory_gib", the most that the process, or on a GPU torch, has held; "of_peak", arithmetic
            against the data sheet, 0..1, where there is one.
        """
        self._last_rate = self._rate_now()
        found = {
            "rate": self._last_rate,
            "data_wait": min(1.0, self._waited / self._seconds()),
            "memory_gib": peak_memory(self._device) / GIB,
        }
        if self._peak_share is not None:
            found["of_peak"] = self._last_rate * self._peak_share
        self._begin()
        return found


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: of torch on a GPU, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


def peak_share(ebseg: EBSeg, config: TrainConfig, processes: int) -> float | None:
    """Fraction of the processes' peak that training with one picture a second takes.

    Args:
        ebseg: the model, on its device, which runs once forward.
        config: crop and number type.
        processes: each with a device as this one.

    Returns:
        None on a CPU, which has no data sheet, and on a GPU whose one is not known.
    """
    if ebseg.device.type != "cuda":
        return None
    peak = data_sheet_peak(torch.cuda.get_device_name(ebseg.device), PEAK_DTYPES[config.amp])
    return None if peak is None else TIMES_FORWARD * forward_flops(ebseg, config.crop) / (peak * processes)


@torch.no_grad()
def forward_flops(ebseg: EBSeg, side: int, batch: int = 1) -> float:
    """Floating point operations of all stages for square pictures."""
    trained = [parameter for parameter in ebseg.parameters() if parameter.requires_grad]
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=ebseg.device)
    ebseg.requires_grad_(False)  # counting stumbles over what could have gradients
    try:
        with FlopCounterMode(display=False) as counter:
            ebseg.stages(images)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return float(counter.get_total_flops())
