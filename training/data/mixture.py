"""What one run learns from: one data set, or several whose class lists are put together.

A class of a later data set and a class of an earlier one are one if they share a word, name before synonym
(see `class_lists`). Labels are places in the class list of all.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import VocabularyError
from model.vocabulary.classes import ClassName, TrainingClasses, Vocabulary
from model.vocabulary.reading import as_read
from training.config import TrainConfig
from training.data.class_lists import same, united
from training.data.layout import IGNORED, Sample, SegmentationFolder, read_labels
from training.data.pictures import is_wide
from training.errors import DatasetError
from training.progress import progress


class Mixture:
    """The pictures of several data sets, one after the other.

    Attributes:
        folders: the data sets.
        weights: of each, how often its pictures come beside those of another.
        names: of the pictures; with the data set's folder before it where there are several.
        classes: K classes of all.
        trained: for each class whether a run may be shown its masks.

    Args:
        folders: one or more.
        weights: of each; more than 0.

    Raises:
        DatasetError: a class is trained in one and new in another, or the classes are too many.
    """

    def __init__(self, folders: Sequence[SegmentationFolder], weights: Sequence[float]):
        self.folders, self.weights = tuple(folders), tuple(weights)
        self.classes: tuple[ClassName, ...] = ()
        self.trained: tuple[bool, ...] = ()
        self._tables: list[NDArray[np.signedinteger[Any]]] = []
        for folder in self.folders:
            self._add(folder)
        several = len(self.folders) > 1
        self.names = [
            f"{folder.root.name}/{name}" if several else name for folder in folders for name in folder.names
        ]
        self._ends = np.cumsum([len(folder) for folder in self.folders])

    @classmethod
    def of(cls, config: TrainConfig) -> "Mixture":
        """What a run is told to learn from.

        Raises:
            DatasetError: a data set cannot be used, or they cannot be put together.
        """
        sources = config.sources()
        folders = [SegmentationFolder(path, config.train_split) for path, _ in sources]
        return cls(folders, [weight for _, weight in sources])

    def _add(self, folder: SegmentationFolder) -> None:
        classes, trained = list(self.classes), list(self.trained)
        places = []
        for item, shown in zip(folder.classes, folder.trained, strict=True):
            place = _place_of(item, self.classes)
            if place is None:
                place = len(classes)
                classes.append(item)
                trained.append(shown)
            elif trained[place] != shown:
                new, other = ("a data set before", folder.root) if shown else (folder.root, "one before")
                raise DatasetError(
                    f"the class {item.name!r} is new in {new} and trained in {other}, which would show its "
                    'masks: give it the same "trained" in all classes.json'
                )
            else:
                classes[place] = united(classes[place], item)
            places.append(place)
        try:
            self.classes = Vocabulary.of(classes).classes
        except VocabularyError as error:
            raise DatasetError(f"{folder.root}: with the data sets before: {error}") from error
        self.trained = tuple(trained)
        narrow = np.int16 if len(classes) <= np.iinfo(np.int16).max else np.int32
        self._tables.append(np.array([*places, IGNORED], dtype=narrow))

    def __len__(self) -> int:
        return len(self.names)

    def _find(self, index: int) -> tuple[int, int]:
        """Which data set a picture is of, and its place there."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._ends[number]) + len(self.folders[number])

    def __getitem__(self, index: int) -> Sample:
        """Reads a picture and its labels, as `SegmentationFolder` does."""
        number, place = self._find(index)
        sample = self.folders[number][place]
        if number == 0:  # whose classes are the first
            return sample
        return dataclasses.replace(sample, labels=self._tables[number][sample.labels])

    def training_classes(self) -> TrainingClasses:
        """The classes whose masks may be shown to a run.

        Raises:
            DatasetError: there is none.
        """
        shown = [item for item, trained in zip(self.classes, self.trained, strict=True) if trained]
        if not shown:
            raise DatasetError(f'{self.folders[0].root}: no class has "trained": true')
        return TrainingClasses.of(shown)

    def vocabulary(self) -> Vocabulary:
        """All classes, each told whether it counts as trained."""
        return Vocabulary.of(self.classes, trained=self.trained)

    def factors(self, rare: float, *, shown: bool = True) -> NDArray[np.float64] | None:
        """How often each picture comes, on average, [pictures]; None if each comes once.

        The weight of its data set, times the largest factor of a trained class in it,
        max(1, sqrt(rare / share of the pictures that show it)), as LVIS has it (Gupta et al. 2019, app. B).

        Args:
            rare: share of the pictures, 0..1; 0 looks at no label map.
            shown: whether to show progress.

        Raises:
            DatasetError: a label map cannot be read.
        """
        if not rare and len(set(self.weights)) == 1:
            return None
        counts = [len(folder) for folder in self.folders]
        weights = np.repeat(np.array(self.weights, dtype=np.float64), counts)
        if not rare:
            return weights
        held = self._held(shown) & np.array(self.trained)
        shares = held.mean(0)
        factor = np.maximum(1.0, np.sqrt(rare / np.maximum(shares, 1 / len(self))))
        largest: NDArray[np.float64] = np.where(held, factor, 1.0).max(1)
        return weights * largest

    def wide(self) -> NDArray[np.bool_]:
        """Which pictures are wider than high, by their files' heads, [pictures].

        Raises:
            DatasetError: a file cannot be read.
        """

        def look(index: int) -> bool:
            number, place = self._find(index)
            folder = self.folders[number]
            return is_wide(folder.files(folder.names[place])[0])

        with ThreadPoolExecutor() as pool:
            return np.fromiter(pool.map(look, range(len(self))), bool, len(self))

    def _held(self, shown: bool) -> NDArray[np.bool_]:
        """Which classes each label map holds, [pictures, K]."""
        held = np.zeros((len(self), len(self.classes)), dtype=bool)

        def look(index: int) -> None:
            number, place = self._find(index)
            folder = self.folders[number]
            counts = np.bincount(read_labels(folder.files(folder.names[place])[1]).ravel())
            here = np.flatnonzero(counts)
            held[index, self._tables[number][here[here < len(folder.classes)]]] = True

        with ThreadPoolExecutor() as pool, progress("counting classes", len(self), shown=shown) as bar:
            for _ in pool.map(look, range(len(self))):
                bar.advance()
        return held


def _place_of(item: ClassName, known: Sequence[ClassName]) -> int | None:
    """The class that an item is one with: of its name, or else the first that shares a word."""
    name = as_read(item.name)
    by_name = (index for index, one in enumerate(known) if as_read(one.name) == name)
    by_word = (index for index, one in enumerate(known) if same(one, item))
    return next(by_name, next(by_word, None))
