"""Draws the sample scenes beside it: pages of Storybook that no training saw, at twice its size."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.storybook.scene import draw

SEED = 2026
SCENES = {
    "harbour": ("landscape", 71),
    "village": ("landscape", 66),
    "street": ("street", 23),
    "room": ("room", 23),
}
HEIGHT, WIDTH = 384, 512  # pixels


def main() -> None:
    """Writes one JPEG a scene."""
    for name, (kind, number) in SCENES.items():
        scene = draw(np.random.default_rng([SEED, number]), kind, height=HEIGHT, width=WIDTH)
        path = Path(__file__).with_name(f"{name}.jpg")
        Image.fromarray(scene.picture).save(path, quality=92)
        print(f"{path.name}: {scene.caption}")


if __name__ == "__main__":
    main()
