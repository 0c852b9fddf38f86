"""The one layout of data sets: pictures, label maps and a class list, in files that any tool can write.

    ROOT/classes.json            {"classes": [{"name": ..., "synonyms": [...], "trained": true}, ...],
                                  "ignore": 255, "title": "..."}
    ROOT/images/SPLIT/NAME.jpg   or any other of `model.pictures.suffixes`
    ROOT/labels/SPLIT/NAME.png   one channel of 8 or 16 bits, or a palette PNG, whose indices count

A label is the class's place in `classes`, from 0; the file's `ignore` value, 255 or 65535, means no class.
A class that is not `trained` is new: a run never shows its masks. Pictures are read as the service reads
them, upright by a camera's orientation mark (EXIF); label maps are of the upright picture.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from model.pictures.suffixes import PICTURES
from model.vocabulary.classes import TrainingClasses, Vocabulary
from training.data.class_file import read_classes
from training.data.pictures import read_picture
from training.data.present import CLASSES_FILE
from training.errors import DatasetError
from training.progress import progress as progress_bar

IGNORED = -1  # label of a pixel without a class, in memory
PICTURE_SUFFIXES = PICTURES
_FOLDER_PROBLEMS = 10  # listed when a folder is opened
CHECK_PROBLEMS = 20  # listed by `check`


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture and its truth.

    Attributes:
        name: the files' stem.
        picture: [H, W, 3], RGB.
        labels: [H, W], places in the class list, or -1 where there is no class; int16, of files of 16 bits
            int32: wider ones take a loader's time.
    """

    name: str
    picture: NDArray[np.uint8]
    labels: NDArray[np.signedinteger[Any]]


class SegmentationFolder:
    """One split of a data set in the one layout. Opening lists files, indexing reads them.

    Attributes:
        root: the data set.
        split: folder name below `images` and `labels`.
        title: what the data set calls itself, may be empty.
        names: stems of the picture files, sorted.
        classes: K classes in the order of the labels.
        trained: for each class whether a run may be shown its masks.
        ignore: the files' value for no class, 255 or 65535.

    Raises:
        DatasetError: `classes.json` is missing or wrong, the split is missing or empty, or pictures and
            label maps do not pair up; the first 10 files are named.
    """

    def __init__(self, root: str | Path, split: str):
        self.root = Path(root)
        self.split = split
        self.title, self.classes, self.trained, self.ignore = read_classes(self.root)
        self._pictures, self._labels = _pairs(self.root, split)
        self.names = sorted(self._pictures)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Reads a picture and its labels.

        Raises:
            IndexError: there are fewer pictures.
            DatasetError: a file cannot be read, the sizes differ, or a label is no class.
        """
        name = self.names[index]
        picture, labels = read_pair(*self.files(name), len(self.classes), self.ignore)
        return Sample(name=name, picture=picture, labels=labels)

    def files(self, name: str) -> tuple[Path, Path]:
        """The picture and the label map of a stem."""
        return self._pictures[name], self._labels[name]

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def training_classes(self) -> TrainingClasses:
        """The classes whose masks may be shown to a run.

        Raises:
            DatasetError: there is none.
        """
        shown = [item for item, trained in zip(self.classes, self.trained, strict=True) if trained]
        if not shown:
            raise DatasetError(f'{self.root / CLASSES_FILE}: no class has "trained": true')
        return TrainingClasses.of(shown)

    def vocabulary(self) -> Vocabulary:
        """All classes, each marked whether it counts as trained."""
        return Vocabulary.of(self.classes, trained=self.trained)


def read_pair(
    picture_file: Path, label_file: Path, classes: int, ignore: int
) -> tuple[NDArray[np.uint8], NDArray[np.signedinteger[Any]]]:
    """A picture and its labels, as in `Sample`.

    Args:
        picture_file, label_file: where they lie.
        classes: of the data set.
        ignore: the files' value for no class.

    Raises:
        DatasetError: a file cannot be read, the sizes differ, or a label is no class.
    """
    picture, stored = read_picture(picture_file), read_labels(label_file)
    if stored.shape != picture.shape[:2]:
        raise DatasetError(
            f"{label_file} is {size_text(stored)} pixels, its image {picture_file.name}"
            f" is {size_text(picture)}"
        )
    signed = np.int16 if stored.dtype == np.uint8 else np.int32
    labels: NDArray[np.signedinteger[Any]] = stored.astype(signed)
    np.putmask(labels, stored == ignore, IGNORED)
    if labels.max(initial=IGNORED) >= classes:
        wrong = np.unique(labels[labels >= classes])
        raise DatasetError(
            f"{label_file} holds {_some(wrong)}, but labels go from 0 to {classes - 1}"
            f" and {ignore} is no class"
        )
    return picture, labels


def check(folder: SegmentationFolder, *, progress: bool = True) -> None:
    """Reads every file of a split.

    Args:
        folder: the split.
        progress: whether to show a bar on standard error.

    Raises:
        DatasetError: files are wrong; the first 20 are listed.
    """
    problems = []
    with progress_bar(f"checking {folder.split}", len(folder), shown=progress) as bar:
        for index in range(len(folder)):
            try:
                folder[index]
            except DatasetError as error:
                problems.append(str(error))
            bar.advance()
    if problems:
        raise listing(f"{folder.root}, {folder.split}", problems, CHECK_PROBLEMS)


def listing(what: str, problems: Sequence[str], most: int = CHECK_PROBLEMS) -> DatasetError:
    """One error for many problems: their count and the first `most`, a line each."""
    lines = [f"{what}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *problems[:most]]
    if len(problems) > most:
        lines.append(f"... and {len(problems) - most} more")
    return DatasetError("\n  ".join(lines))


def picture_path(root: str | Path, split: str, name: str, suffix: str = ".jpg") -> Path:
    """Where a picture lies."""
    return Path(root) / "images" / split / f"{name}{suffix}"


def labels_path(root: str | Path, split: str, name: str) -> Path:
    """Where a picture's label map lies."""
    return Path(root) / "labels" / split / f"{name}.png"


def read_labels(path: Path) -> NDArray[np.uint8 | np.uint16]:
    """A label map [H, W] with its file's own values; those of a palette PNG are the indices.

    Raises:
        DatasetError: the file cannot be read, or is not one channel of 8 or 16 bits.
    """
    with opened_image(path) as image:
        # Pillow stretches grey values of 1, 2 and 4 bits over 0..255: they would be other labels.
        stretched = image.mode == "L" and str(image.tile[0].args) != "L"
        if image.mode not in ("L", "P", "I;16") or stretched:
            raise DatasetError(
                f"{path} is no label map: expected one channel of 8 or 16 bits or a palette,"
                f" got mode {image.mode}{' of fewer bits' if stretched else ''}"
            )
        return np.array(image)


@contextmanager
def opened_image(source: Path | bytes, where: object = None) -> Iterator[ImageFile.ImageFile]:
    """An image file, open for a while; what fails meanwhile is said of the file.

    Args:
        source: the file, or its content.
        where: what messages call it; without, the path.

    Raises:
        DatasetError: it is missing or cannot be read.
    """
    name = source if where is None else where
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except FileNotFoundError:
        raise DatasetError(f"{name} is missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name} cannot be read: {error}") from error


def _pairs(root: Path, split: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Picture and label file of each stem."""
    folders = {kind: root / kind / split for kind in ("images", "labels")}
    for kind, folder in folders.items():
        if not folder.is_dir():
            known = sorted(path.name for path in (root / kind).glob("*") if path.is_dir())
            has = f"; there is {', '.join(known)}" if known else ""
            raise DatasetError(f"{folder} is missing: is the split's name {split!r} right{has}?")
    problems = []
    pictures: dict[str, Path] = {}
    for path in _files(folders["images"], PICTURE_SUFFIXES):
        if path.stem in pictures:
            problems.append(f"{pictures[path.stem]} and {path.name} are two images of one name")
        pictures[path.stem] = path
    labels = {path.stem: path for path in _files(folders["labels"], (".png",))}
    for stem in sorted(pictures.keys() - labels.keys()):
        problems.append(f"{pictures[stem]} has no label map {labels_path(root, split, stem)}")
    for stem in sorted(labels.keys() - pictures.keys()):
        problems.append(f"{labels[stem]} has no image in {folders['images']}")
    if problems:
        raise listing(f"{root}, {split}", problems, _FOLDER_PROBLEMS)
    if not pictures:
        raise DatasetError(f"{folders['images']} holds no images ({', '.join(PICTURE_SUFFIXES)})")
    return pictures, labels


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [
        folder / name
        for name in sorted(os.listdir(folder))
        if not name.startswith(".") and name.lower().endswith(suffixes)
    ]


def size_text(array: NDArray[Any]) -> str:
    """Width and height of an array [H, W, ...], for a message."""
    return f"{array.shape[1]} x {array.shape[0]}"


def _some(values: NDArray[Any], most: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:most].tolist())
    return f"labels {shown}{' ...' if len(values) > most else ''}"
