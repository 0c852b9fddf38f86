"""From a public archive to the one layout, in several processes, going on where an earlier run ended."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model.storage.files import replace_text
from model.vocabulary.classes import TrainingClasses, Vocabulary
from training.data.in_processes import in_processes
from training.data.layout import labels_path, listing, picture_path
from training.data.pictures import is_turned
from training.data.prepare.ade20k import ADE20K_150, ADE20K_847
from training.data.prepare.archive import (
    DatasetArchive,
    Pair,
    Protocol,
    checked_picture,
    shrunk,
    shrunk_officially,
)
from training.data.prepare.coco_stuff import COCO_STUFF
from training.data.prepare.pascal_context import PASCAL_CONTEXT_59, PASCAL_CONTEXT_459
from training.data.prepare.voc import VOC
from training.data.present import CLASSES_FILE
from training.data.protocol import write_differences
from training.data.writing import JPEG_QUALITY, take_picture, write_classes, write_labels, write_sample
from training.errors import DatasetError

ARCHIVES = {
    "coco-stuff": COCO_STUFF,
    "voc": VOC,
    "pascal-context-59": PASCAL_CONTEXT_59,
    "pascal-context-459": PASCAL_CONTEXT_459,
    "ade20k-150": ADE20K_150,
    "ade20k-847": ADE20K_847,
}
OFFICIAL_QUALITY = 75  # of JPEG files that the released code saves
STATE_FILE = ".prepare.json"  # which archive a folder is made from, so that no other is mixed in


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCount:
    """Pairs of a split: all, and those that an earlier run had written."""

    pairs: int
    skipped: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedDataset:
    """What `prepare` made.

    Attributes:
        title: of the data set.
        root: where it lies.
        classes: how many there are.
        trained: how many of them count as trained for weights trained on COCO-Stuff.
        ignore: value for no class in the label maps.
        splits: pairs of each split.
        source: which files the labels are from, where an archive leaves a choice; else empty.
    """

    title: str
    root: Path
    classes: int
    trained: int
    ignore: int
    splits: dict[str, SplitCount]
    source: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "title": self.title,
            "root": str(self.root),
            "classes": self.classes,
            "trained": self.trained,
            "ignore": self.ignore,
            "source": self.source,
            "splits": {
                name: {"pairs": count.pairs, "skipped": count.skipped} for name, count in self.splits.items()
            },
        }


def prepare(
    name: str,
    src: str | Path,
    dst: str | Path,
    *,
    splits: Sequence[str] | None = None,
    jobs: int | None = None,
    force: bool = False,
    link: bool = False,
    protocol: Protocol = "own",
    shown: bool = True,
) -> PreparedDataset:
    """Writes a public data set in the one layout.

    A pair whose two files are there is not made again. `classes.json` is taken away while pairs are
    made and written when all are there, so that nobody takes a half-made folder for a data set.

    Args:
        name: a key of `ARCHIVES`.
        src: folder that the archive was unpacked in.
        dst: folder to write, new, empty or made from the same archive.
        splits: None takes the archive's usual ones.
        jobs: processes; None takes one a CPU, 1 works in this one.
        force: makes all pairs anew.
        link: picture files become second names of the archive's, not copies.
        protocol: "official" prepares as the released code does, as far as the files are there.
        shown: whether to show a bar on standard error.

    Raises:
        DatasetError: files are missing, damaged or hold unknown labels (up to 20 are listed), `dst` holds
            something else, or the disk did not take the files.
    """
    root, archive = Path(dst), _archive(name)
    wanted = tuple(splits) if splits is not None else archive.splits
    _check_splits(archive, wanted)
    if not Path(src).is_dir():
        raise DatasetError(f"{src} is no folder: give the one that the archive was unpacked in")
    found = archive.find(Path(src), wanted, protocol)
    counts = Counter(pair.split for pair in found.pairs)
    for split in wanted:
        if not counts[split]:
            raise DatasetError(f"{src}: split {split} has no images")
    with disk_errors(root):
        take_folder(root, name, protocol)
        left = [pair for pair in found.pairs if force or not _is_written(root, pair)]
        if left:
            (root / CLASSES_FILE).unlink(missing_ok=True)
        work = partial(convert, name, root, link=link, protocol=protocol)
        problems = list(in_processes(f"preparing {name}", work, left, jobs, shown))
        if problems:
            raise listing(f"{archive.title} in {src}", problems)
        vocabulary = Vocabulary.builtin(archive.vocabulary)
        trained = TrainingClasses.coco_stuff().matches(vocabulary)
        write_differences(root, found.differs)
        write_classes(root, vocabulary.classes, trained, archive.ignore, archive.title)
    made = Counter(pair.split for pair in left)
    return PreparedDataset(
        title=archive.title,
        root=root,
        classes=len(vocabulary),
        trained=sum(trained),
        ignore=archive.ignore,
        splits={
            split: SplitCount(pairs=counts[split], skipped=counts[split] - made[split]) for split in wanted
        },
        source=found.source,
    )


def convert(name: str, root: Path, pair: Pair, *, link: bool, protocol: Protocol = "own") -> str | None:
    """Writes one pair; says what is wrong with it, or None.

    Raises:
        DatasetError: the picture cannot be linked.
        OSError: the disk did not take it.
    """
    archive = ARCHIVES[name]
    try:
        labels = archive.read(pair)
        picture = checked_picture(pair, labels)
    except DatasetError as error:
        return str(error)
    short_side = archive.longest_short_side
    if short_side is not None and min(labels.shape) > short_side:
        official = protocol == "official"
        picture, labels = (shrunk_officially if official else shrunk)(picture, labels, short_side)
        quality = OFFICIAL_QUALITY if official else JPEG_QUALITY
        write_sample(root, pair.split, pair.name, picture, labels, ignore=archive.ignore, quality=quality)
        return None
    if is_turned(pair.picture):  # whoever reads the file would turn it, and not its labels
        write_sample(root, pair.split, pair.name, picture, labels, ignore=archive.ignore)
        return None
    take_picture(pair.picture, picture_path(root, pair.split, pair.name), link=link)
    write_labels(root, pair.split, pair.name, labels, ignore=archive.ignore)
    return None


def _archive(name: str) -> DatasetArchive:
    if name not in ARCHIVES:
        raise DatasetError(f"there is no archive {name!r}; known are {', '.join(ARCHIVES)}")
    return ARCHIVES[name]


def _check_splits(archive: DatasetArchive, splits: Sequence[str]) -> None:
    known = archive.splits + archive.further_splits
    for split in splits:
        if split not in known:
            raise DatasetError(f"{archive.title} has no split {split!r}; known are {', '.join(known)}")
    if not splits or len(set(splits)) < len(splits):
        raise DatasetError(f"name each split once, of {', '.join(known)}")


def take_folder(root: Path, name: str, protocol: Protocol = "own") -> None:
    """Notes which archive the folder is made from, and how; one made from something else is refused."""
    state = root / STATE_FILE
    made = {"archive": name} if protocol == "own" else {"archive": name, "protocol": protocol}
    content = json.dumps(made) + "\n"
    if state.exists():
        if state.read_text(encoding="utf-8") != content:
            raise DatasetError(
                f"{root} is made from another archive or by another protocol ({state}); take a new folder"
            )
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root} holds other files already; take a new folder")
    else:
        state.parent.mkdir(parents=True, exist_ok=True)
        replace_text(state, content)


def _is_written(root: Path, pair: Pair) -> bool:
    paths = (labels_path(root, pair.split, pair.name), picture_path(root, pair.split, pair.name))
    # a machine that lost its power may leave empty files
    return all(path.exists() and path.stat().st_size > 0 for path in paths)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Raises DatasetError for what the disk does not take."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{root} cannot be written: {error}") from error
