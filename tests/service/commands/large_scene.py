"""A large picture of many Storybook scenes side by side, written in bands; what a label map of it is worth.

As a command, it draws one of 20,000 x 15,000, segments it by `ebseg segment --tiling` and prints what came of
it: `python -m tests.service.commands.large_scene FOLDER`.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import Affine

from model.pictures.decode import settle_warnings
from model.segmenter import Segmenter
from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import Vocabulary
from training.evaluation.metrics import Confusion
from training.storybook.classes import CLASSES
from training.storybook.scene import SCENES, draw

CELL = (500, 600)  # rows and columns of a scene
GEO = {"crs": "EPSG:32632", "transform": Affine(0.5, 0, 600_000, 0, -0.5, 5_300_000)}


@dataclass(frozen=True, slots=True)
class DrawnScene:
    """A picture's file, and that of its truth, uint8, labels from 1."""

    picture: Path
    truth: Path
    size: tuple[int, int]

    def truth_map(self) -> NDArray[np.uint8]:
        return np.memmap(self.truth, np.uint8, "r", shape=self.size)


def draw_large(folder: Path, rows: int, columns: int, *, scenes: int, seed: int) -> DrawnScene:
    """Draws a picture of so many pixels as a GeoTIFF of tiles; each of so many scenes comes often."""
    rng = np.random.default_rng(seed)
    drawn = [
        draw(np.random.default_rng([seed, at]), SCENES[at % len(SCENES)], height=CELL[0], width=CELL[1],
             allowed=CLASSES)
        for at in range(scenes)
    ]  # fmt: skip
    file = DrawnScene(folder / "large.tif", folder / "truth.raw", (rows, columns))
    layout = {"driver": "GTiff", "height": rows, "width": columns, "count": 3, "dtype": "uint8"}
    how = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1}
    with (
        rasterio.open(file.picture, "w", **layout, **how, **GEO, photometric="RGB") as picture,
        file.truth.open("wb") as truth,
    ):
        for top in range(0, rows, CELL[0]):
            band = np.zeros((CELL[0], -(-columns // CELL[1]) * CELL[1], 4), np.uint8)
            for left in range(0, columns, CELL[1]):
                scene = drawn[rng.integers(scenes)]
                turn = 1 if rng.random() < 0.5 else -1
                band[:, left : left + CELL[1], :3] = scene.picture[:, ::turn]
                band[:, left : left + CELL[1], 3] = scene.labels[:, ::turn] + 1
            band = band[: rows - top, :columns]
            window = ((top, top + len(band)), (0, columns))
            picture.write(band[..., :3].transpose(2, 0, 1), window=window)
            truth.write(np.ascontiguousarray(band[..., 3]).data)
    return file


def mean_iou(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean intersection over union, percent; in bands."""
    confusion = Confusion(len(CLASSES))
    for top in range(0, len(truth), CELL[0]):
        band = slice(top, top + CELL[0])
        confusion.add(truth[band].astype(np.int64) - 1, labels[band].astype(np.int64) - 1)
    mean = confusion.mean_iou()
    assert mean is not None
    return mean


def seams(labels: NDArray[np.uint8], truth: NDArray[np.uint8], starts: list[int], size: int) -> float:
    """How often labels change where a tile begins or ends, beside how often they do elsewhere.

    Counted across columns, where the truth does not change.
    """
    changed = np.zeros(labels.shape[1] - 1)
    counted = np.zeros(labels.shape[1] - 1)
    for top in range(0, len(truth), CELL[0]):
        own, true = labels[top : top + CELL[0]], truth[top : top + CELL[0]]
        same = true[:, 1:] == true[:, :-1]
        changed += ((own[:, 1:] != own[:, :-1]) & same).sum(0)
        counted += same.sum(0)
    edges = np.array([start - 1 for start in starts[1:]] + [start + size - 1 for start in starts[:-1]])
    elsewhere = np.ones(len(changed), bool)
    elsewhere[edges] = False
    at_edges = changed[edges].sum() / counted[edges].sum()
    return float(at_edges / (changed[elsewhere].sum() / counted[elsewhere].sum()))


def shrunk_labels(scene: DrawnScene) -> NDArray[np.uint8]:
    """The label map of the picture as a whole, as the model sees it without tiles."""
    segmenter = Segmenter(load(packaged_checkpoint()).ebseg)
    rows, columns = scene.size
    scale = 768 / max(scene.size)
    small = (round(rows * scale), round(columns * scale))
    with rasterio.open(scene.picture) as file:
        seen = file.read(out_shape=(3, *small), resampling=rasterio.enums.Resampling.average)
    pixels = np.ascontiguousarray(seen.transpose(1, 2, 0))
    found = segmenter.segment(pixels, Vocabulary.of(CLASSES)).labels.astype(np.uint8)
    at = [np.minimum((np.arange(side) * small[axis]) // side, small[axis] - 1) for axis, side in
          enumerate(scene.size)]  # fmt: skip
    return found[np.ix_(*at)]


def main() -> None:
    """Draws, segments and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(15_000, 20_000))
    parser.add_argument("--tiling", default="512,64")
    args = parser.parse_args()
    settle_warnings()
    Image.MAX_IMAGE_PIXELS = None
    args.folder.mkdir(parents=True, exist_ok=True)
    scene = draw_large(args.folder, *args.size, scenes=30, seed=7)
    print("drawn", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, "MiB")
    out = args.folder / "labels.tif"
    command = [sys.executable, "-m", "ebseg", "segment", str(scene.picture), "--tiling", args.tiling]
    command += ["--classes", ",".join(CLASSES), "--background", "none", "--out", str(out), "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    with rasterio.open(out) as file:
        labels = file.read(1)
        assert file.crs == GEO["crs"]
    truth = scene.truth_map()
    print(json.dumps({"peak_mib": peak, "timings_s": {k: v / 1000 for k, v in answer["timings_ms"].items()}}))
    print("mIoU in tiles", mean_iou(labels, truth), "of the whole", mean_iou(shrunk_labels(scene), truth))


if __name__ == "__main__":
    main()
