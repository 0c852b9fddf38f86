"""Two pictures with a boat and a buoy on it, as each annotation tool writes them."""

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 30, 40
BOAT = ((5.0, 5.0), (25.0, 5.0), (25.0, 20.0), (5.0, 20.0))
BUOY = ((10.0, 8.0), (16.0, 8.0), (16.0, 14.0), (10.0, 14.0))
NAMES = ("quay", "bay")


def truth() -> NDArray[np.int64]:
    """0: boat, 1: buoy, -1: nothing drawn."""
    labels = np.full((HEIGHT, WIDTH), -1)
    labels[5:20, 5:25] = 0
    labels[8:14, 10:16] = 1
    return labels


def buoy() -> NDArray[np.bool_]:
    return np.asarray(truth() == 1)


def pictures(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(folder / f"{name}.jpg")
    return folder


def png(mask: NDArray[Any]) -> str:
    target = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()


def labelme(folder: Path) -> Path:
    """The buoy of the second picture as a mask, with a point and an ignored region beside it."""
    pictures(folder)
    for name in NAMES:
        shapes: list[dict[str, Any]] = [{"label": "boat", "shape_type": "polygon", "points": BOAT}]
        if name == NAMES[0]:
            shapes.append({"label": "buoy", "shape_type": "rectangle", "points": (BUOY[0], BUOY[2])})
            shapes.append({"label": "buoy", "shape_type": "point", "points": [BUOY[0]]})
        else:
            part = png(np.ones((6, 6), bool))
            corners = ((10, 8), (15, 13))
            shapes.append({"label": "buoy", "shape_type": "mask", "points": corners, "mask": part})
        content = {"imagePath": f"{name}.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def coco(folder: Path) -> Path:
    """The small one first, and once as run lengths: what is smaller lies on top all the same."""
    pictures(folder / "pictures")
    runs = [0, *np.diff(np.flatnonzero(np.diff(np.r_[-1, buoy().T.ravel(), -1]))).tolist()]
    if not buoy().T.ravel()[0]:
        runs = runs[1:]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(NAMES):
        images.append({"id": number, "file_name": f"images/{name}.jpg", "height": HEIGHT, "width": WIDTH})
        small: Any = [np.ravel(BUOY).tolist()] if number else {"size": [HEIGHT, WIDTH], "counts": runs}
        for category, shape in ((7, small), (3, [np.ravel(BOAT).tolist()])):
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category})
            annotations[-1]["segmentation"] = shape
    categories = [{"id": 3, "name": "boat"}, {"id": 7, "name": "buoy"}, {"id": 9, "name": "gull"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def panoptic(folder: Path) -> Path:
    pictures(folder / "pictures")
    numbers = np.select([truth() == 0, truth() == 1], [70_000, 5], 0)
    colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
    images, annotations = [], []
    (folder / "panoptic").mkdir()
    for number, name in enumerate(NAMES):
        images.append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        Image.fromarray(colors).save(folder / "panoptic" / f"{name}.png")
        segments = [{"id": 70_000, "category_id": 3}, {"id": 5, "category_id": 7}]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    categories = [{"id": 3, "name": "boat"}, {"id": 7, "name": "buoy"}]
    path = folder / "panoptic.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def packed_brush(mask: NDArray[np.bool_]) -> list[int]:
    """A brush stroke as Label Studio stores it: runs of equal values of 8 bits, lengths of 16 bits."""
    values = np.repeat(mask.ravel().astype(int) * 255, 4)
    bits = f"{len(values):032b}" + f"{7:05b}" + f"{15:04b}" * 4
    edges = np.r_[0, np.flatnonzero(np.diff(values)) + 1, len(values)]
    for start, end in itertools.pairwise(edges):
        if end - start == 4 and start > 0:  # as single values now and then
            bits += "0" + "00" + f"{end - start - 1:016b}" + "".join(f"{x:08b}" for x in values[start:end])
        else:
            bits += "1" + "01" + f"{end - start - 1:016b}" + f"{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio(folder: Path) -> Path:
    pictures(folder / "pictures")
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    percent = np.array([100 / WIDTH, 100 / HEIGHT])
    tasks = []
    for number, name in enumerate(NAMES):
        boat = {"points": (np.array(BOAT) * percent).tolist(), "polygonlabels": ["boat"]}
        results: list[dict[str, Any]] = [{"type": "polygonlabels", "value": boat} | size]
        if number:
            value: dict[str, Any] = {"format": "rle", "rle": packed_brush(buoy()), "brushlabels": ["buoy"]}
            results.append({"type": "brushlabels", "value": value} | size)
        else:
            x, y = np.array(BUOY[0]) * percent
            value = {"x": x, "y": y, "width": 600 / WIDTH, "height": 600 / HEIGHT, "rotation": 0}
            results.append({"type": "rectanglelabels", "value": value | {"rectanglelabels": ["buoy"]}} | size)
            results.append({"type": "choices", "value": {"choices": ["sunny"]}})
        address = (
            f"/data/upload/1/1a2b3c4d-{name}.jpg" if number else f"/data/local-files/?d=pictures/{name}.jpg"
        )
        annotations = [{"was_cancelled": False, "result": results}, {"was_cancelled": True, "result": []}]
        tasks.append({"id": number, "data": {"image": address}, "annotations": annotations})
    tasks.append({"id": 9, "data": {"image": "none.jpg"}, "annotations": []})
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def cvat(folder: Path) -> Path:
    """The buoy lies higher than the boat, though it comes first; subsets tell the splits."""
    pictures(folder / "pictures")
    points = ";".join(f"{x},{y}" for x, y in BOAT)
    shapes = {
        "quay": '<box label="buoy" xtl="10" ytl="8" xbr="16" ybr="14" z_order="1"/>',
        "bay": '<mask label="buoy" rle="0,36" left="10" top="8" width="6" height="6" z_order="1"/>',
    }
    images = "".join(
        f'<image id="{number}" name="{name}.jpg" subset="{subset}" width="{WIDTH}" height="{HEIGHT}">'
        f'{shapes[name]}<polygon label="boat" points="{points}" z_order="0"/>'
        f'<points label="boat" points="1,1"/></image>'
        for number, (name, subset) in enumerate(zip(NAMES, ("Train", "Validation"), strict=True))
    )
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    return path


def masks(folder: Path, *, colors: bool = False) -> Path:
    """Palette PNGs whose 0 is the background, or RGB files; and the names beside them."""
    pictures(folder / "pictures")
    (folder / "masks").mkdir()
    indices = (truth() + 1).astype(np.uint8)
    indices[0, 0] = 255 if not colors else 0
    for name in NAMES:
        image = Image.fromarray(indices)
        image.putpalette([value * 37 % 256 for value in range(768)])
        (image.convert("RGB") if colors else image).save(folder / "masks" / f"{name}.png")
    table = [value * 37 % 256 for value in range(9)]
    lines = ["_background_", "boat", "buoy"]
    if colors:
        lines = [f"{name}:{','.join(map(str, table[3 * i : 3 * i + 3]))}::" for i, name in enumerate(lines)]
        lines.insert(0, "# label:color_rgb:parts:actions")
    (folder / "labels.txt").write_text("\n".join(lines))
    return folder / "masks"
