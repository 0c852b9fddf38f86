"""What the process notices about itself: a late event loop, memory in use, a device that is stuck."""

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from model.allocator import return_freed_memory
from service.observability.metrics import Metrics
from service.observability.processes import own_memory
from service.settings import Settings

LOG = logging.getLogger(__name__)

INTERVAL_S = 0.5
LAG_WINDOW = 30  # intervals; longer than the usual time between two scrapes, so that none misses a peak
MEMORY_EVERY = 10  # intervals; memory changes slowly, and CUDA's numbers cost more than the rest
_STATM = Path("/proc/self/statm")
_PROCESS = ("process_rss", "cpu")


class WatchedDevice(Protocol):
    """What is watched of a device."""

    @property
    def name(self) -> str:
        """For the log and for probes."""

    def stalled_for(self) -> float:
        """Seconds since its running work last got on; 0 when it is idle."""


class WatchedMemory(Protocol):
    """What is watched of the host's memory."""

    def subsided(self) -> bool:
        """Whether much of it was in use since this was last true, and little is now."""


class Watched(Protocol):
    """What is watched of a service."""

    @property
    def settings(self) -> Settings: ...  # noqa: D102

    @property
    def metrics(self) -> Metrics: ...  # noqa: D102

    @property
    def devices(self) -> Sequence[WatchedDevice]: ...  # noqa: D102

    @property
    def memory(self) -> WatchedMemory: ...  # noqa: D102


class Watch:
    """Measures twice a second, on the event loop, and tells the metrics and the log.

    Args:
        service: whose devices and metrics.
        interval_s: between two measurements, seconds, above 0.
    """

    def __init__(self, service: Watched, *, interval_s: float = INTERVAL_S):
        self._service = service
        self._interval_s = interval_s
        self._lags: deque[float] = deque(maxlen=LAG_WINDOW)
        self._stuck = ""
        self._blind = ""  # why the memory could not be measured
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; needs a running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        measured = 0
        while True:
            if measured % MEMORY_EVERY == 0:
                if self._service.memory.subsided():
                    await asyncio.to_thread(return_freed_memory)  # of what large requests have left behind
                self._measure_memory()
            measured += 1
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._lags.append(max(0.0, loop.time() - due))
            metrics = self._service.metrics
            metrics.set_part(metrics.event_loop_lag, max(self._lags))
            self._log_stalls()

    def _measure_memory(self) -> None:
        """A process that has no file left to open, or a device that failed, must not end the watch."""
        try:
            sizes, blind = memory_bytes(), ""
        except (OSError, RuntimeError) as error:
            sizes, blind = {}, f"{type(error).__name__}: {error}"
        if blind and not self._blind:
            LOG.warning("memory in use could not be measured: %s", blind)
        self._blind = blind
        if _PROCESS in sizes and self._service.settings.workers > 1:
            sizes[_PROCESS] = own_memory()  # what processes share counts once
        metrics = self._service.metrics
        for (kind, device), size in sizes.items():
            metrics.memory(size, kind, device)

    def _log_stalls(self) -> None:
        reason = stalled(self._service)
        if reason and not self._stuck:
            LOG.error(reason)
        elif self._stuck and not reason:
            LOG.warning("the devices get on again")
        self._stuck = reason


def stalled(service: Watched) -> str:
    """Why the watchdog barks: which device's work has got nowhere for `watchdog_s`; empty if none."""
    limit = service.settings.watchdog_s
    for device in service.devices:
        seconds = device.stalled_for()
        if seconds > limit:
            return f"the device {device.name} has made no progress for {seconds:.0f} s"
    return ""


def memory_bytes() -> dict[tuple[str, str], int]:
    """Memory in use, bytes, by kind and device; the process's is the CPU's, CUDA's come once it is in use."""
    kinds: dict[tuple[str, str], int] = {}
    if _STATM.exists():  # Linux only
        resident_pages = int(_STATM.read_text().split()[1])
        kinds[_PROCESS] = resident_pages * os.sysconf("SC_PAGE_SIZE")
    if torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            kinds["cuda_allocated", f"cuda:{index}"] = torch.cuda.memory_allocated(index)
            kinds["cuda_reserved", f"cuda:{index}"] = torch.cuda.memory_reserved(index)
    return kinds
