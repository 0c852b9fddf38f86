"""Miniature archives in the layouts that the official downloads have after unpacking."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

WIDTH, HEIGHT = 3, 2
Rows = Sequence[Sequence[int]]


def picture(path: Path, width: int = WIDTH, height: int = HEIGHT, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value, value // 2, 10)).save(path, quality=90)


def grey(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, np.uint8)).save(path)


def palette(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(rows, np.uint8))
    image.putpalette([value * 37 % 256 for value in range(768)])
    image.save(path)


def lines(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def coco_stuff(src: Path, labels: Mapping[str, Rows], split: str = "train2017") -> Path:
    """Pictures of `train2017.zip` and label maps of `stuffthingmaps_trainval2017.zip`."""
    for name, rows in labels.items():
        picture(src / split / f"{name}.jpg")
        grey(src / "stuffthingmaps" / split / f"{name}.png", rows)
    return src


def voc(src: Path, splits: Mapping[str, Mapping[str, Rows]]) -> Path:
    """`VOCtrainval_11-May-2012.tar`, and `SegmentationClassAug` for the split `trainaug`."""
    root = src / "VOCdevkit" / "VOC2012"
    for split, labels in splits.items():
        lines(root / "ImageSets" / "Segmentation" / f"{split}.txt", list(labels))
        for name, rows in labels.items():
            picture(root / "JPEGImages" / f"{name}.jpg")
            if split == "trainaug":
                grey(root / "SegmentationClassAug" / f"{name}.png", rows)
            else:
                palette(root / "SegmentationClass" / f"{name}.png", rows)
    picture(root / "JPEGImages" / "2007_000001.jpg")  # most of VOC's pictures have no label map
    return src


def ade20k_benchmark(src: Path, splits: Mapping[str, Mapping[str, Rows]]) -> Path:
    """`ADEChallengeData2016.zip`; splits are `training` and `validation`."""
    root = src / "ADEChallengeData2016"
    for split, labels in splits.items():
        for name, rows in labels.items():
            picture(root / "images" / split / f"{name}.jpg")
            grey(root / "annotations" / split / f"{name}.png", rows)
    return src


def codes(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Red, green and blue of a `_seg.png`: red carries tens, its units and blue say nothing of the class."""
    return np.stack([rows // 256 * 10 + 7, rows % 256, rows % 5], -1).astype(np.uint8)


def ade20k_full(src: Path, split: str, scene: str, name: str, rows: NDArray[np.int64]) -> Path:
    """One picture of `ADE20K_2021_17_01.zip` with the files that lie beside it."""
    folder = src / "ADE20K_2021_17_01" / "images" / "ADE" / split / scene
    height, width = rows.shape
    picture(folder / f"{name}.jpg", width, height)
    Image.fromarray(codes(rows)).save(folder / f"{name}_seg.png")
    Image.fromarray(codes(rows)).save(folder / f"{name}_parts_1.png")
    (folder / f"{name}.json").write_text("{}")
    grey(folder / name / f"instance_000_{name}.png", [[255]])
    return src


def context(src: Path, splits: Mapping[str, Mapping[str, Rows]], dtype: Any = np.uint16) -> Path:
    """`VOCtrainval_03-May-2010.tar` and, below `trainval`, the maps of PASCAL Context's own page."""
    root = src / "VOCdevkit" / "VOC2010"
    for split, labels in splits.items():
        lines(root / "ImageSets" / "Main" / f"{split}.txt", list(labels))
        for name, rows in labels.items():
            picture(root / "JPEGImages" / f"{name}.jpg")
            (src / "trainval").mkdir(exist_ok=True)
            savemat(src / "trainval" / f"{name}.mat", {"LabelMap": np.array(rows, dtype)})
    return src


def detail(src: Path, splits: Mapping[str, Mapping[str, Sequence[tuple[int, Any]]]]) -> Path:
    """`trainval_merged.json` of PASCAL in Detail: per picture the category and run lengths of each mask."""
    images: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    for split, pictures in splits.items():
        for name, regions in pictures.items():
            key = int(name.replace("_", ""))
            images.append(
                {
                    "image_id": key,
                    "file_name": f"{name}.jpg",
                    "phase": split,
                    "height": HEIGHT,
                    "width": WIDTH,
                }
            )
            for category, counts in regions:
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
                masks.append(
                    {"id": len(masks), "image_id": key, "category_id": category, "segmentation": segmentation}
                )
    path = src / "VOCdevkit" / "VOC2010" / "trainval_merged.json"
    path.write_text(json.dumps({"images": images, "annos_segmentation": masks, "parts": []}))
    return path
