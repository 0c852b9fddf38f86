"""A text tower for tests, and the device thread it works on."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from service.caches.cache_values import Row
from service.caches.text_cache import Embed, Finished

WIDTH = 16


def row_of(name: str, text: str = "") -> Row:
    """The embedding of a class name: always the same, of unit length."""
    seed = int.from_bytes(hashlib.sha256(f"{name}{text}".encode()).digest()[:8], "little")
    row = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


class Tower:
    """Embeds names, and remembers what it was asked for.

    Attributes:
        calls: the names of each call.
        error: raised instead, if set.
    """

    def __init__(self, text_digest: str = "t" * 64):
        self.text_digest = text_digest
        self.calls: list[list[str]] = []
        self.error: Exception | None = None

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        self.calls.append(list(names))
        if self.error is not None:
            raise self.error
        return torch.from_numpy(np.stack([row_of(name, "".join(templates)) for name in names]))


class Device:
    """Runs work when its gate is open.

    Attributes:
        gate: open at first.
        waiting: calls before the gate.
        dropped: calls that were cancelled there.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.dropped = 0

    async def run(self, work: Callable[[], Tensor]) -> Tensor:
        self.waiting += 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        finally:
            self.waiting -= 1
        return work()

    def embed(self, tower: Tower) -> Embed:
        """Has the tower work behind the gate."""

        async def run(names: Sequence[str], templates: Sequence[str], finished: Finished) -> Tensor:
            return await self.run(lambda: tower.embed(names, templates))

        return run
