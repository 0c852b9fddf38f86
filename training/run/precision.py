"""Which number type pays on this processor."""

import torch

from training.config import Amp


def cpu_amp() -> Amp:
    """bfloat16 where the processor is quick at it, else none.

    PyTorch multiplies bfloat16 as fast as float32 or faster with AVX-512, and emulates it without: 50 times
    slower on AVX2.
    """
    return "bfloat16" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "off"


def cpu_autocast() -> torch.autocast:
    """A context in which products are made in `cpu_amp`'s type."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=cpu_amp() == "bfloat16")
