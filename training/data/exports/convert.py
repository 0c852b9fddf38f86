"""From an annotation tool's export to the one layout."""

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.vocabulary.classes import ClassName
from training.data.exports import coco, cvat, label_studio, labelme, masks
from training.data.exports.options import ExportOptions
from training.data.exports.reading import PictureFinder
from training.data.exports.regions import AnnotatedPicture, Export, painted
from training.data.in_processes import in_processes
from training.data.layout import IGNORED, PICTURE_SUFFIXES, listing, opened_image, picture_path
from training.data.pictures import is_turned, read_picture
from training.data.prepare.convert import (
    PreparedDataset,
    SplitCount,
    disk_errors,
    take_folder,
)
from training.data.writing import JPEG_QUALITY, save, take_picture, write_classes, write_labels
from training.errors import DatasetError

READERS = {
    "coco": coco.read,
    "labelme": labelme.read,
    "label-studio": label_studio.read,
    "cvat": cvat.read,
}
NO_CLASS = ("__ignore__", "_background_", "background")  # names that tools give to what is no class
TRAIN, VALIDATION = "train", "val"
BORDER = 255  # an index that is no class in label maps of every kind
SPLIT_NAME = re.compile(r"[\w-]+")  # it becomes a folder's


def prepare_export(
    kind: str,
    src: Path,
    dst: Path,
    options: ExportOptions,
    *,
    jobs: int | None = None,
    shown: bool = True,
) -> PreparedDataset:
    """Writes an export in the one layout; a second run makes all of it anew.

    Args:
        kind: a key of `READERS`, or "masks".
        src: annotation file, or folder of them.
        dst: folder to write: new, empty, or made from an export of the same kind.
        options: how it is taken.
        jobs: processes; None takes one a CPU.
        shown: whether to show a bar on standard error.

    Raises:
        DatasetError: the export is not what it should be, or the disk did not take the files.
    """
    if not src.exists():
        raise DatasetError(f"{src} is not there: give the export's file or folder")
    if options.pictures is not None and not options.pictures.is_dir():
        raise DatasetError(f"--pictures {options.pictures} is no folder")
    export = _read(kind, src, options)
    ignored = {name.casefold() for name in (*NO_CLASS, *options.ignored)}
    names = _class_names(export, ignored)
    places = dict.fromkeys(_labels(export), IGNORED) | {name: label for label, name in enumerate(names)}
    ignore = 255 if len(names) <= 255 else 65535
    pictures = _unique(export.pictures)
    splits = _splits(pictures, options.val_share)
    with disk_errors(dst):
        take_folder(dst, kind)
        (dst / "classes.json").unlink(missing_ok=True)
        for folder in ("images", "labels"):  # of an earlier export, whose labels may have been others
            shutil.rmtree(dst / folder, ignore_errors=True)
        work = partial(write_pair, dst, places, ignore, link=options.link)
        pairs = list(zip(pictures, splits, strict=True))
        problems = list(in_processes(f"preparing {kind}", work, pairs, jobs, shown))
        if problems:
            raise listing(f"{kind} in {src}", problems)
        write_classes(dst, [ClassName(name=name) for name in names], [True] * len(names), ignore, dst.name)
    counts = Counter(splits)
    left_out = ", ".join(f"{number} {what}" for what, number in export.left_out.items())
    return PreparedDataset(
        title=dst.name,
        root=dst,
        classes=len(names),
        trained=len(names),
        ignore=ignore,
        splits={split: SplitCount(pairs=counts[split], skipped=0) for split in sorted(counts)},
        source=f"{kind}; without an area, and left out: {left_out}" if left_out else kind,
    )


def write_pair(
    root: Path, places: dict[str, int], ignore: int, pair: tuple[AnnotatedPicture, str], *, link: bool
) -> str | None:
    """Writes a picture and its label map; says what is wrong with it, or None.

    Raises:
        DatasetError: the picture cannot be linked.
        OSError: the disk did not take it.
    """
    item, split = pair
    try:
        upright, raw = _opened(item)
        labels = _label_map(item, places, upright.size[::-1])
    except DatasetError as error:
        return str(error)
    suffix = item.picture.suffix.lower() if isinstance(item.picture, Path) else ""
    if raw and isinstance(item.picture, Path) and suffix in PICTURE_SUFFIXES:
        take_picture(item.picture, picture_path(root, split, item.name, suffix), link=link)
    else:
        save(upright, picture_path(root, split, item.name), quality=JPEG_QUALITY)
    write_labels(root, split, item.name, labels, ignore=ignore)
    return None


def _read(kind: str, src: Path, options: ExportOptions) -> Export:
    base = src if src.is_dir() else src.parent
    finder = PictureFinder([folder for folder in (options.pictures, base) if folder is not None])
    if kind == "masks":
        if options.pictures is None:
            raise DatasetError("masks need --pictures DIR, the folder of the images that they belong to")
        export = masks.read(src, PictureFinder([options.pictures]), options.classes)
    else:
        export = READERS[kind](src, finder)
        if options.classes is not None:
            known = masks.names_in(options.classes)
            unknown = sorted(_labels(export) - set(known))
            if unknown:
                raise DatasetError(f"{options.classes} does not name {', '.join(unknown)}, which {src} holds")
            export = Export(pictures=export.pictures, classes=known, left_out=export.left_out)
    if not export.pictures:
        raise DatasetError(f"{src} holds no annotated image")
    return export


def _labels(export: Export) -> set[str]:
    """All names in an export."""
    drawn = {region.label for item in export.pictures for region in item.regions}
    return drawn | {label for item in export.pictures for label in item.values.values()}


def _class_names(export: Export, ignored: set[str]) -> list[str]:
    """The classes that something was drawn of, in the export's order or by name."""
    used = _labels(export)
    ordered = [name for name in export.classes if name in used] or sorted(used)
    names = [name for name in ordered if name.casefold() not in ignored]
    if not names:
        raise DatasetError("the export holds no region of any class")
    return names


def _unique(pictures: Sequence[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Refuses two pictures of one name, which are one file in two places or would overwrite each other."""
    counts = Counter(item.name for item in pictures)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise DatasetError(
            f"{len(twice)} names stand for several images each, such as {twice[0]}: rename the images"
        )
    return sorted(pictures, key=lambda item: item.name)


def _splits(pictures: Sequence[AnnotatedPicture], share: float) -> list[str]:
    """The split of each picture: as the export says, else by a digest of its name, the same in every run."""
    for item in pictures:
        if item.split is not None and SPLIT_NAME.fullmatch(item.split) is None:
            raise DatasetError(
                f"{item.name} is of the split {item.split!r}; a split's name must be of letters, digits, "
                "dashes and underscores"
            )
    if any(item.split is not None for item in pictures):
        return [item.split or TRAIN for item in pictures]
    count = min(len(pictures) - 1, max(1, round(share * len(pictures)))) if share else 0
    ranked = sorted(pictures, key=lambda item: hashlib.sha256(item.name.encode()).digest())
    chosen = {item.name for item in ranked[:count]}
    return [VALIDATION if item.name in chosen else TRAIN for item in pictures]


def _opened(item: AnnotatedPicture) -> tuple[Image.Image, bool]:
    """A picture as it was annotated, RGB, and whether its file is read so.

    Annotation tools turn pictures upright by their orientation mark, programs mostly do not; the size tells.
    """
    where = item.picture if isinstance(item.picture, Path) else item.name
    size = item.size or _size_of(item)
    picture = read_picture(item.picture, where)
    if picture.shape[:2] == size:
        return Image.fromarray(picture), True
    if is_turned(item.picture) and picture.shape[1::-1] == size:
        return Image.fromarray(read_picture(item.picture, where, upright=False)), False
    height, width = picture.shape[:2]
    raise DatasetError(f"{where} is {width} x {height} pixels, but was annotated at {size[1]} x {size[0]}")


def _size_of(item: AnnotatedPicture) -> tuple[int, int]:
    if item.label_map is None:
        raise DatasetError(f"{item.name}: nothing was drawn on it, and its size is not told")
    with opened_image(item.label_map) as image:
        return image.height, image.width


def _label_map(item: AnnotatedPicture, places: dict[str, int], size: tuple[int, int]) -> NDArray[np.int64]:
    if item.label_map is None:
        return painted(item.regions, places, *size)
    by_color = masks.colored(item.values)
    values = masks.values_of(item.label_map, by_color)
    present = np.unique(values)
    table = {value: places[name] for value, name in item.values.items()}
    if not by_color:
        table.setdefault(BORDER, IGNORED)
    unknown = [int(value) for value in present if int(value) not in table]
    if unknown:
        shown = ", ".join(map(masks.shown, unknown[:5]))
        raise DatasetError(f"{item.label_map} holds {shown}, which --classes names no class for")
    found = np.array([table[int(value)] for value in present], dtype=np.int64)
    return found[np.searchsorted(present, values)]
