"""Folders of drawn pictures in several sizes, some of them broken."""

from pathlib import Path

import numpy as np

from tests.service.fakes import encoded

SIZES = ((48, 64), (64, 48), (40, 40), (30, 90))


def write_pictures(folder: Path, count: int, *, broken: int = 0) -> list[str]:
    """The ids of `count` pictures, of which every `broken`-th is cut short, in the order of a listing."""
    random = np.random.default_rng(7)
    names = []
    for index in range(count):
        name = f"{'deeper/' if index % 3 == 0 else ''}p{index:04}.png"
        names.append(name)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = SIZES[index % len(SIZES)]
        blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
        content = encoded(blocks.repeat(8, 0).repeat(8, 1)[:height, :width])
        path.write_bytes(content[: len(content) // 2] if broken and index % broken == 1 else content)
    return sorted(names)
