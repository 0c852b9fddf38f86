"""Writes Storybook in the one layout: a split to train on, without the new classes, and a held-out one."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from model.storage.files import replace_text
from model.vocabulary.classes import ClassName
from training.data.present import CLASSES_FILE
from training.data.writing import write_classes, write_sample
from training.errors import DatasetError
from training.progress import progress
from training.storybook.classes import STORYBOOK, Book
from training.storybook.scene import SCENES, draw

TRAIN, HELD_OUT = "train", "val"
HEIGHT, WIDTH = 192, 256  # pixels
QUILTS = 0.2  # share of the training scenes that are quilts, which show every class alike
_STREAMS = {TRAIN: 0, HELD_OUT: 1}  # keeps the splits' random numbers apart


def generate(
    root: str | Path,
    *,
    train: int,
    held_out: int,
    seed: int,
    jobs: int | None = None,
    book: Book = STORYBOOK,
) -> None:
    """Draws a whole data set; the same arguments give the same files.

    Scenes of the split "train" hold training classes only. Those of "val" hold all classes, and are book
    scenes alone. Beside them stand the captions, `captions/SPLIT.jsonl`.

    Args:
        root: a folder that is made, or is empty.
        train, held_out: scenes of the two splits; at least one in all.
        seed: of everything. Scene i depends on the seed, the split and i alone.
        jobs: processes that draw; None takes one for each processor.
        book: what is drawn.

    Raises:
        DatasetError: the folder holds something, or a count, the seed or `jobs` is wrong.
    """
    root = Path(root)
    if min(train, held_out, seed) < 0 or train + held_out < 1:
        raise DatasetError("Storybook needs a seed and counts that are not negative, and at least one scene")
    if jobs is not None and jobs < 1:
        raise DatasetError(f"at least one process has to draw, got {jobs}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root} is not empty; give a new folder, or remove it first")
    try:
        for split, count in ((TRAIN, train), (HELD_OUT, held_out)):
            if count:
                _write_split(root, split, count, seed, jobs or os.cpu_count() or 1, book)
        classes = [ClassName(name=name) for name in book.classes]
        trained = [name not in book.new for name in book.classes]
        write_classes(root, classes, trained, 255, f"{book.title}, seed {seed}")
    finally:
        if not (root / CLASSES_FILE).exists():
            shutil.rmtree(root, ignore_errors=True)


def scene_of(
    seed: int, split: str, index: int, book: Book = STORYBOOK
) -> tuple[np.random.Generator, str, Collection[str]]:
    """What scene `index` of a split is drawn from: random numbers, a kind and the allowed classes."""
    rng = np.random.default_rng([seed, _STREAMS[split], index])
    quilt = split == TRAIN and rng.random() < QUILTS
    kind = "quilt" if quilt else SCENES[rng.integers(len(SCENES))]
    return rng, kind, book.trained if split == TRAIN else book.classes


def _write_split(root: Path, split: str, count: int, seed: int, jobs: int, book: Book) -> None:
    chunks = [
        (str(root), split, seed, range(start, min(start + 16, count)), book) for start in range(0, count, 16)
    ]
    context = multiprocessing.get_context("spawn")
    rows: list[dict[str, str]] = []
    with context.Pool(jobs) as workers, progress(f"drawing {split}", count) as bar:
        for captions in workers.imap(_write_chunk, chunks):
            rows += captions
            bar.advance(len(captions))
    path = root / "captions" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _write_chunk(chunk: tuple[str, str, int, range, Book]) -> list[dict[str, str]]:
    root, split, seed, indices, book = chunk
    cv2.setNumThreads(1)
    captions = []
    for index in indices:
        rng, kind, allowed = scene_of(seed, split, index, book)
        scene = draw(rng, kind, height=HEIGHT, width=WIDTH, book=book, allowed=allowed)
        name = f"{index:06d}"
        write_sample(root, split, name, scene.picture, scene.labels)
        captions.append({"name": name, "caption": scene.caption})
    return captions
