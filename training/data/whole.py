"""All files of a run's data, read once before its first step: a broken one would end it after hours."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.data.in_processes import in_processes
from training.data.layout import SegmentationFolder, listing, read_pair
from training.errors import DatasetError

FEW = 200  # pictures that are read sooner than processes have started

_Pair = tuple[Path, Path, int, int]  # of `read_pair`


def files_digest(folders: Sequence[SegmentationFolder]) -> str:
    """Digest of the names, sizes and times of all files, which are not read."""
    digest = hashlib.sha256()
    for picture, labels, classes, ignore in _pairs(folders):
        for path in (picture, labels):
            found = path.stat()
            digest.update(f"{path} {found.st_size} {found.st_mtime_ns} {classes} {ignore}\n".encode())
    return digest.hexdigest()


def refuse_broken_files(folders: Sequence[SegmentationFolder]) -> None:
    """Reads every picture and label map, in several processes where they are many.

    Raises:
        DatasetError: some cannot be used; all of them are listed.
    """
    pairs = list(_pairs(folders))
    jobs = 1 if len(pairs) <= FEW else os.cpu_count()
    problems = list(in_processes("looking at all images", _problem, pairs, jobs, len(pairs) > FEW))
    if problems:
        raise listing("the data", problems, most=len(problems))


def _pairs(folders: Sequence[SegmentationFolder]) -> Iterator[_Pair]:
    for folder in folders:
        for name in folder.names:
            yield (*folder.files(name), len(folder.classes), folder.ignore)


def _problem(pair: _Pair) -> str | None:
    try:
        read_pair(*pair)
    except DatasetError as error:
        return str(error)
    return None
