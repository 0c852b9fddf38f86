"""float32 as IEEE 754 has it, where a device may round the factors of its products to fewer bits.

NVIDIA's GPUs multiply float32 in TF32 (10 bits of mantissa instead of 23) where torch lets them, which it
does in convolutions by default; oneDNN on CPUs may take bfloat16. That is good enough to serve with, but not
to tell whether a model computes what it computed elsewhere.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class _Settings:
    """torch's settings for products of float32; they hold for the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[str] = []

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                self._before = [place.fp32_precision for place in self._places()]
                for place in self._places():
                    place.fp32_precision = "ieee"
            self._users += 1

    def exit(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for place, before in zip(self._places(), self._before, strict=True):
                    place.fp32_precision = before

    def _places(self) -> list[Any]:
        cuda: Any = torch.backends.cuda  # whose parts have no types
        cudnn: Any = torch.backends.cudnn
        mkldnn: Any = torch.backends.mkldnn
        return [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


_SETTINGS = _Settings()


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Products of float32 are computed in float32 meanwhile, on every device and in every thread.

    Threads may hold it at the same time: the first one in sets it, the last one out puts back what was set
    before. What others compute in between is no less exact than it would have been.
    """
    _SETTINGS.enter()
    try:
        yield
    finally:
        _SETTINGS.exit()
