"""Many Storybook scenes, drawn ahead by all processors into one file that training maps."""

import json
import multiprocessing
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from model.storage.files import replace_text
from training.progress import progress
from training.storybook.classes import STORYBOOK, Book
from training.storybook.scene import SCENES, draw

SIDE = 192  # pixels that scenes are drawn at, and that the segmenter sees
LEAST_ODDS = 1e-6  # of a scene whose caption mentions nothing
CHUNK = 64  # scenes that a process draws at a time
OUTSIDE = -1e4  # attention bias of what lies outside a cut or mask; its exponential is zero, no slow denormal


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Scenes with what their captions say.

    Attributes:
        pictures: uint8 [N, side, side, 3], RGB.
        labels: uint8 [N, side, side], index into the book's classes.
        mentioned: bool [N, classes]: what the captions mention.
        captions: N lines.
        book: what is drawn.
        odds: cumulated odds of the scenes, [N], up to 1. Those that show a class of few scenes have more, so
            that every class is seen about as often; in a book with rare words all have the same.
    """

    pictures: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    mentioned: NDArray[np.bool_]
    captions: list[str]
    book: Book = STORYBOOK
    odds: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        often = np.maximum(self.mentioned.sum(0), 1)
        odds = np.ones(len(self)) if self.book.rare else (self.mentioned / often).sum(1) + LEAST_ODDS
        summed = np.cumsum(odds)
        object.__setattr__(self, "odds", summed / summed[-1])

    def __len__(self) -> int:
        return len(self.captions)


def pool(
    folder: Path,
    *,
    seed: int,
    count: int,
    side: int,
    shares: tuple[float, float, float],
    book: Book = STORYBOOK,
    allowed: Collection[str] | None = None,
    processes: int | None = None,
) -> Pool:
    """Draws scenes, or maps those that an earlier call with the same arguments drew into the same folder.

    Args:
        folder: for the files; what other arguments drew there is drawn anew.
        seed: of the scenes; scene i depends on it and on i alone.
        count: scenes.
        side: pixels of the pictures kept; drawn at `SIDE`, then shrunk as the model shrinks for CLIP.
        shares: of scenes, quilts and close-ups.
        book: what is drawn.
        allowed: classes that may occur; None for all, the rare ones rarely.
        processes: that draw; None takes one for each processor.
    """
    shape = (count, side, side)
    done, note = folder / "captions.txt", folder / "scenes.json"  # the former is written last
    names = None if allowed is None else sorted(allowed)
    asked = json.dumps([seed, count, side, shares, asdict(book), names])
    # labels that other arguments drew mean other classes
    if not (done.exists() and note.exists() and note.read_text(encoding="utf-8") == asked):
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        replace_text(note, asked)
        arrays = [_map(folder / "pictures.npy", (*shape, 3), "w+"), _map(folder / "labels.npy", shape, "w+")]
        mentioned = np.zeros((count, len(book.classes)), bool)
        captions: list[str] = []
        jobs = [
            (seed, start, min(CHUNK, count - start), side, shares, book, allowed)
            for start in range(0, count, CHUNK)
        ]
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes or os.cpu_count() or 1) as workers, progress("drawing", count) as bar:
            for pictures, labels, named, texts in workers.imap(_draw_chunk, jobs):
                part = slice(len(captions), len(captions) + len(texts))
                arrays[0][part], arrays[1][part], mentioned[part] = pictures, labels, named
                captions += texts
                bar.advance(len(texts))
        for array in arrays:
            array.flush()
        np.save(folder / "mentioned.npy", mentioned)
        replace_text(done, "\n".join(captions))
    return Pool(
        pictures=_map(folder / "pictures.npy", (*shape, 3), "r"),
        labels=_map(folder / "labels.npy", shape, "r"),
        mentioned=np.load(folder / "mentioned.npy"),
        captions=done.read_text(encoding="utf-8").split("\n"),
        book=book,
    )


def kind(rng: np.random.Generator, shares: tuple[float, float, float]) -> str:
    """A scene's kind, by the shares of scenes, quilts and close-ups."""
    group = rng.choice(3, p=np.array(shares) / sum(shares))
    return SCENES[rng.integers(len(SCENES))] if group == 0 else ("quilt", "close_up")[group - 1]


_Job = tuple[int, int, int, int, tuple[float, float, float], Book, Collection[str] | None]
_Mapped = np.memmap[tuple[int, ...], np.dtype[np.uint8]]
_Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], list[str]]


def _draw_chunk(job: _Job) -> _Drawn:
    seed, start, count, side, shares, book, allowed = job
    cv2.setNumThreads(1)
    pictures = np.zeros((count, side, side, 3), np.uint8)
    labels = np.zeros((count, side, side), np.uint8)
    mentioned = np.zeros((count, len(book.classes)), bool)
    captions = []
    for i in range(count):
        rng = np.random.default_rng([seed, start + i])
        kind_drawn = kind(rng, shares)
        here = book.captioned(rng) if allowed is None else allowed
        scene = draw(rng, kind_drawn, height=SIDE, width=SIDE, book=book, allowed=here)
        pictures[i] = cv2.resize(scene.picture, (side, side), interpolation=cv2.INTER_LINEAR)
        labels[i] = cv2.resize(scene.labels, (side, side), interpolation=cv2.INTER_NEAREST)
        mentioned[i, list(scene.mentioned)] = True
        captions.append(scene.caption)
    return pictures, labels, mentioned, captions


def _map(path: Path, shape: tuple[int, ...], mode: Literal["r", "w+"]) -> _Mapped:
    return np.lib.format.open_memmap(path, mode=mode, dtype=np.uint8, shape=shape if mode == "w+" else None)
