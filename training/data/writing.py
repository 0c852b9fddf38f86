"""Data sets of the one layout, written: pairs of a picture and a label map, last the class list."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.storage.files import replace_text, replacing, sync_below
from model.vocabulary.classes import ClassName
from training.data.class_file import IGNORE_VALUES, parsed_classes
from training.data.layout import IGNORED, labels_path, picture_path, size_text
from training.data.present import CLASSES_FILE
from training.errors import DatasetError

JPEG_QUALITY = 95


def write_sample(
    root: str | Path,
    split: str,
    name: str,
    picture: NDArray[np.uint8],
    labels: NDArray[Any],
    *,
    ignore: int = 255,
    quality: int = JPEG_QUALITY,
) -> None:
    """Writes a pair, the label map last: where there is one, its picture is whole.

    Args:
        root: the data set.
        split: folder below `images` and `labels`.
        name: the files' stem.
        picture: [H, W, 3], RGB, saved as JPEG.
        labels: [H, W], integers; -1 and `ignore` mean no class.
        ignore: 255 makes a file of 8 bits, 65535 one of 16.
        quality: of the JPEG.

    Raises:
        DatasetError: shape, type or labels do not fit.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DatasetError(f"{name}: an image must be uint8 [H, W, 3], got {picture.dtype} {picture.shape}")
    if labels.shape != picture.shape[:2]:
        raise DatasetError(
            f"{name}: labels are {size_text(labels)} pixels, the image is {size_text(picture)}"
        )
    stored = _stored(name, labels, ignore)
    save(Image.fromarray(picture), picture_path(root, split, name), quality=quality)
    save(Image.fromarray(stored), labels_path(root, split, name))


def write_labels(root: str | Path, split: str, name: str, labels: NDArray[Any], *, ignore: int = 255) -> None:
    """Writes the label map alone, for a picture file that is there already; as `write_sample`."""
    save(Image.fromarray(_stored(name, labels, ignore)), labels_path(root, split, name))


def write_classes(
    root: str | Path,
    classes: Iterable[ClassName],
    trained: Iterable[bool],
    ignore: int,
    title: str,
) -> None:
    """Writes `classes.json`, which makes a folder a data set: do it last, when all else is on the disk.

    Raises:
        DatasetError: the lists differ in length, classes collide, or are too many for `ignore`.
    """
    path = Path(root) / CLASSES_FILE
    items, shown = list(classes), list(trained)
    if len(items) != len(shown):
        raise DatasetError(f"{path}: {len(items)} classes, but `trained` has {len(shown)} entries")
    rows = [
        {"name": item.name, "synonyms": list(item.synonyms), "trained": seen}
        for item, seen in zip(items, shown, strict=True)
    ]
    content = {"title": title, "ignore": ignore, "classes": rows}
    parsed_classes(content, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sync_below(path.parent)
    replace_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def save(image: Image.Image, path: Path, **options: Any) -> None:
    """Saves a picture whole or not at all, in its suffix's format; `write_classes` waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as partial:
        image.save(partial, **options)


def take_picture(source: Path, path: Path, *, link: bool) -> None:
    """Puts a picture file as it is into a data set: compressed again, it would lose quality.

    Args:
        source: the file.
        path: its place in the data set; `write_classes` waits for the disk.
        link: make it a second name of the file, which takes no room and no time.

    Raises:
        DatasetError: the file cannot have a second name there.
        OSError: the disk did not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        with replacing(path, durable=False) as partial:
            shutil.copyfile(source, partial)
        return
    path.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), path)
    except OSError as error:
        raise DatasetError(
            f"{source} cannot have a second name in {path.parent}, as on another disk; leave --link out: "
            f"{error.strerror}"
        ) from None


def _stored(name: str, labels: NDArray[Any], ignore: int) -> NDArray[Any]:
    """Labels as a file holds them, uint8 or uint16."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise DatasetError(f"{name}: labels must be integers, got {labels.dtype}")
    if ignore not in IGNORE_VALUES:
        raise DatasetError(f"{name}: ignore must be 255 or 65535, got {ignore}")
    wide = labels.astype(np.int64)
    wide[wide == IGNORED] = ignore
    if wide.size and not 0 <= wide.min() <= wide.max() <= ignore:
        raise DatasetError(f"{name}: labels go from {wide.min()} to {wide.max()}, allowed are 0 to {ignore}")
    return wide.astype(np.uint8 if ignore == 255 else np.uint16)
