"""What the public archives have in common: where files lie, how stored values become labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.transforms import resized
from training.data.layout import IGNORED, listing
from training.data.pictures import read_picture
from training.errors import DatasetError

BACKGROUND = 0  # in the files of VOC and what was made from it
Protocol = Literal["own", "official"]  # how a data set is prepared: our way, or as the released code has it
UNKNOWN = -2  # in a table: a value that the archive's description does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A picture of an archive and where its labels come from.

    Attributes:
        split: "train", "val", ...
        name: stem of the files to write.
        picture: the picture file.
        labels: the label file; of a picture whose labels are elsewhere, the file that holds them.
        regions: masks from an annotation file in place of a label file.
    """

    split: str
    name: str
    picture: Path
    labels: Path
    regions: "Regions | None" = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """Masks of one picture, later ones over earlier ones.

    Attributes:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        masks: category and run lengths as COCO writes them, see `rle.decode`.
    """

    height: int
    width: int
    masks: tuple[tuple[int, str | tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetArchive:
    """One public data set as it lies on the disk after unpacking, and how it becomes the one layout.

    Attributes:
        title: for `classes.json`.
        vocabulary: built-in vocabulary whose order is that of the labels.
        ignore: value for no class in the files to write, 255 or 65535.
        splits: converted unless others are asked for.
        further_splits: converted only if asked for.
        find: lists the pairs of some splits below a folder, by a protocol; DatasetError if files are missing.
        read: labels of a pair, [H, W], -1 = no class; DatasetError if they are wrong.
        longest_short_side: larger pictures are shrunk to it, in pixels; None keeps all sizes.
    """

    title: str
    vocabulary: str
    ignore: int
    splits: tuple[str, ...] = ("train", "val")
    further_splits: tuple[str, ...] = ()
    find: Callable[[Path, Sequence[str], Protocol], "ArchivePairs"]
    read: Callable[[Pair], NDArray[np.int64]]
    longest_short_side: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivePairs:
    """Pairs of an archive.

    Attributes:
        source: which files they are from, where there is a choice.
        differs: sentences on what is otherwise than in the released evaluation.
    """

    pairs: list[Pair] = field(default_factory=list)
    source: str = ""
    differs: tuple[str, ...] = ()


def folder(src: Path, candidates: Iterable[str], archive: str) -> Path:
    """The first folder that exists.

    Args:
        src: what the user gave.
        candidates: paths below it.
        archive: file that the folder comes from, for the message.

    Raises:
        DatasetError: there is none.
    """
    tried = [src / candidate for candidate in candidates]
    for path in tried:
        if path.is_dir():
            return path
    raise DatasetError(
        f"no folder {' or '.join(str(path) for path in tried)}: unpack {archive} below {src}, or give"
        f" the folder that it was unpacked in"
    )


def listed(path: Path, archive: str) -> list[str]:
    """Names in a text file, one a line; further columns do not count.

    Raises:
        DatasetError: the file is missing or empty.
    """
    try:
        names = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: it is part of {archive}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not names:
        raise DatasetError(f"{path} is empty")
    return names


def files(path: Path, suffix: str) -> dict[str, Path]:
    """Files of a folder by their stem, in order."""
    return {item.stem: item for item in sorted(path.glob(f"*{suffix}")) if not item.name.startswith(".")}


def paired(split: str, pictures: Mapping[str, Path], labels: Mapping[str, Path]) -> list[Pair]:
    """Pictures and label files of one split, which must be the same names.

    Raises:
        DatasetError: a partner is missing; up to 20 are listed.
    """
    problems = [
        *(f"{pictures[name]} has no label map" for name in sorted(pictures.keys() - labels.keys())),
        *(f"{labels[name]} has no image" for name in sorted(labels.keys() - pictures.keys())),
    ]
    if problems:
        raise listing(f"split {split}", problems)
    return [Pair(split=split, name=name, picture=pictures[name], labels=labels[name]) for name in pictures]


def of_list(split: str, names: Sequence[str], pictures: Path, labels: Path, suffix: str) -> list[Pair]:
    """Pairs that a list names; files beyond it do not count.

    Raises:
        DatasetError: files are missing; up to 20 are listed.
    """
    there = {".jpg": files(pictures, ".jpg"), suffix: files(labels, suffix)}
    wanted = {".jpg": pictures, suffix: labels}
    problems = [
        f"{wanted[kind] / (name + kind)} is missing"
        for name in names
        for kind in wanted
        if name not in there[kind]
    ]
    if problems:
        raise listing(f"split {split}", problems)
    return [
        Pair(split=split, name=name, picture=there[".jpg"][name], labels=there[suffix][name])
        for name in names
    ]


def table(size: int, labels: Mapping[int, int], others: int = UNKNOWN) -> NDArray[np.int64]:
    """A table of `size` entries from stored value to label, `others` for values that are not named."""
    entries = np.full(size, others, np.int64)
    for value, label in labels.items():
        entries[value] = label
    return entries


def through(entries: NDArray[np.int64], stored: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Labels of stored values.

    Raises:
        DatasetError: a value is none of the archive's; the file and up to five values are named.
    """
    within = (stored >= 0) & (stored < len(entries))
    labels = np.where(within, entries[np.where(within, stored, 0)], UNKNOWN)
    if (labels == UNKNOWN).any():
        wrong = np.unique(stored[labels == UNKNOWN]).tolist()
        shown = ", ".join(str(value) for value in wrong[:5]) + (" ..." if len(wrong) > 5 else "")
        raise DatasetError(f"{path} holds {shown}, which is no value of this archive")
    return labels


def shrunk(
    picture: NDArray[np.uint8], labels: NDArray[np.int64], short_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Picture [H, W, 3] and labels [H, W] with a short side of at most `short_side` pixels.

    The picture is resized as for the network; labels are those of the nearest pixel.
    """
    height, width = labels.shape
    if min(height, width) <= short_side:
        return picture, labels
    factor = short_side / min(height, width)
    rows, columns = round(height * factor), round(width * factor)
    row = ((np.arange(rows) + 0.5) * height / rows).astype(np.int64)
    column = ((np.arange(columns) + 0.5) * width / columns).astype(np.int64)
    return np.array(resized(picture, (rows, columns))), labels[row[:, None], column]


def shrunk_officially(
    picture: NDArray[np.uint8], labels: NDArray[np.int64], short_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As `shrunk`, but by OpenCV: the picture's pixels mixed of four, the labels of the nearest."""
    height, width = labels.shape
    factor = short_side / min(height, width)
    size = round(width * factor), round(height * factor)
    import cv2  # takes a while, and a command that fails first does not need it

    made = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    stored = cv2.resize(labels.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(made, dtype=np.uint8), stored.astype(np.int64)


def checked_picture(pair: Pair, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The picture of a pair as it is stored, RGB [H, W, 3]: that is what archives drew their labels on.

    Raises:
        DatasetError: it cannot be read, or has another size than its labels.
    """
    picture = read_picture(pair.picture, upright=False)
    if picture.shape[:2] != labels.shape:
        height, width = labels.shape
        raise DatasetError(
            f"{pair.picture} is {picture.shape[1]} x {picture.shape[0]} pixels,"
            f" its labels in {pair.labels} are {width} x {height}"
        )
    return picture


def ignoring(*values: int) -> dict[int, int]:
    """Entries of a table for values that mean no class."""
    return dict.fromkeys(values, IGNORED)
