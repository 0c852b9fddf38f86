"""What is asked of a card: to count waits for it, to wait for it, its memory, watts and data sheet."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class CheckedDevice(Protocol):
    """A device that is checked or measured."""

    device: torch.device

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""

    def waits(self) -> Any:
        """A context that gives a list; a line is added for each time that the host waited."""

    def settle(self) -> None:
        """Waits until it has done all that it was asked for."""

    def memory(self) -> dict[str, int]:
        """Bytes now, and the most that there were."""

    def watts(self) -> float | None:
        """That it draws now; None where nothing tells."""


class CudaCard:
    """An NVIDIA GPU. Not yet run on one."""

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())

    def describe(self) -> dict[str, Any]:
        """Name, architecture, memory, versions."""
        properties = torch.cuda.get_device_properties(self.device)
        return {
            "name": properties.name,
            "capability": list(torch.cuda.get_device_capability(self.device)),
            "memory_bytes": properties.total_memory,
            "processors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        """As torch warns of them in its mode for that; and of events, which it does not warn of."""
        found: list[str] = []
        wait_for_event = torch.cuda.Event.synchronize

        def counted(event: torch.cuda.Event) -> None:
            found.append("event")
            wait_for_event(event)

        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            torch.cuda.Event.synchronize = counted  # type: ignore[method-assign, assignment]
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield found
            finally:
                torch.cuda.set_sync_debug_mode(before)
                torch.cuda.Event.synchronize = wait_for_event  # type: ignore[method-assign]
        found += [f"{one.filename}:{one.lineno}" for one in warned if "synchroniz" in str(one.message)]

    def settle(self) -> None:
        """All streams."""
        torch.cuda.synchronize(self.device)

    def memory(self) -> dict[str, int]:
        """What torch's allocator holds."""
        return {
            "bytes": torch.cuda.memory_allocated(self.device),
            "peak_bytes": torch.cuda.max_memory_allocated(self.device),
        }

    def watts(self) -> float | None:
        """By NVML, where its Python package is installed."""
        try:
            return torch.cuda.power_draw(self.device) / 1000
        except (ModuleNotFoundError, RuntimeError):
            return None


# Floating point operations a second, dense, that NVIDIA's data sheets give for a card, by how its name
# begins: float32 without tensor cores, and bfloat16 (float16 where there is no bfloat16) with them. Half of a
# sheet's figure "with sparsity" where it gives that alone. Of names that begin alike the longest counts; a
# name goes on with a further word, so that a card of which nothing is known is not taken for its neighbour.
DATA_SHEETS: dict[str, tuple[float, float]] = {
    "NVIDIA H200 NVL": (60e12, 835e12),
    "NVIDIA H200": (67e12, 989e12),
    "NVIDIA H100 NVL": (60e12, 835e12),
    "NVIDIA H100 PCIe": (51e12, 756e12),
    "NVIDIA H100": (67e12, 989e12),
    "NVIDIA A100": (19.5e12, 312e12),
    "NVIDIA A30": (10.3e12, 165e12),
    "NVIDIA A10": (31.2e12, 125e12),
    "NVIDIA A10G": (35e12, 70e12),
    "NVIDIA L40S": (91.6e12, 362e12),
    "NVIDIA L40": (90.5e12, 181e12),
    "NVIDIA L4": (30.3e12, 121e12),
    "Tesla V100-PCIE": (14e12, 112e12),
    "Tesla V100": (15.7e12, 125e12),
    "Tesla T4": (8.1e12, 65e12),
}


def data_sheet_peak(name: str, dtype: str) -> float | None:
    """Floating point operations a second by a card's data sheet; None for one that is not listed."""
    listed = max((own for own in DATA_SHEETS if re.match(rf"{own}\b", name)), key=len, default=None)
    if listed is None:
        return None
    single, half = DATA_SHEETS[listed]
    return single if dtype == "float32" else half


def card_here() -> CheckedDevice | None:
    """The GPU of this machine; None where there is none."""
    return CudaCard() if torch.cuda.is_available() else None
