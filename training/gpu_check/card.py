"""What the check needs of a card: to count waits for it, to wait for it, and its memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class CheckedDevice(Protocol):
    """A device that is checked."""

    device: torch.device

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""

    def waits(self) -> Any:
        """A context that gives a list; a line is added for each time that the host waited."""

    def settle(self) -> None:
        """Waits until it has done all that it was asked for."""

    def memory(self) -> dict[str, int]:
        """Bytes now, and the most that there were."""


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


def card_here() -> CheckedDevice | None:
    """The GPU of this machine; None where there is none."""
    return CudaCard() if torch.cuda.is_available() else None
