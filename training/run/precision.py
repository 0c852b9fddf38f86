"""Which number type pays on this processor."""

import torch

from model.network.device import AUTO, number_type
from training.config import Amp


def cpu_amp() -> Amp:
    """bfloat16 where the processor is quick at it, else none.

    PyTorch multiplies bfloat16 as fast as float32 or faster with AVX-512, and emulates it without: 50 times
    slower on AVX2.
    """
    return "bfloat16" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "off"


def quick_autocast(device: torch.device) -> torch.autocast:
    """A context in which products are made in bfloat16 where a device is quick at it."""
    wanted = cpu_amp() if device.type == "cpu" else number_type(AUTO, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted == "bfloat16")
