"""Training samples in an endless order that is a function of the seed alone, loaded ahead by threads.

A sample has a number: step * batch + its slot in the batch. The number gives the picture (by shuffled
epochs) and the random numbers of its augmentation and of its loss, so a run that goes on needs no state
of the order, and any number of processes sees the same samples.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import TrainConfig
from training.data.augment import augment, to_target, trained_indices
from training.errors import DatasetError
from training.losses.matcher import Target


class RawSample(Protocol):
    """A picture of a data set: its name, RGB uint8 [H, W, 3], classes [H, W] or -1, signed integers."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def picture(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def labels(self) -> NDArray[np.signedinteger[Any]]: ...  # noqa: D102


class Dataset(Protocol):
    """What is read of a data set: `training.data.layout.SegmentationFolder`, or a test's own."""

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def trained(self) -> Sequence[bool]: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> RawSample: ...


class _Use(IntEnum):
    """What random numbers are for; keeps the streams of one seed apart."""

    ORDER = 0
    AUGMENTATION = 1
    LOSS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """One picture of a batch, augmented.

    Attributes:
        name: of the picture in its split.
        number: of the sample in the run.
        picture: uint8 [3, crop, crop].
        target: its masks of trained classes.
    """

    name: str
    number: int
    picture: Tensor
    target: Target


class Samples:
    """The samples of a run.

    Args:
        dataset: a split with at least one picture.
        config: seed, batch and augmentation.
        factors: how often each picture comes, where not each comes once, see `Mixture.factors`.
        wide: which pictures are wider than high, where a batch is to hold such ones alone or none.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        factors: NDArray[np.float64] | None = None,
        wide: NDArray[np.bool_] | None = None,
    ):
        self.dataset = dataset
        self.config = config
        self._wide = wide
        self._factors = factors
        self._epoch_length = len(dataset) if factors is None else max(1, round(float(factors.sum())))
        self._indices = trained_indices(dataset.trained)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def index(self, number: int) -> int:
        """Which picture of the split a sample is of.

        Every epoch shows each once, or as often as its factor says: of a factor of 2.3 two or three times.
        """
        epoch, place = divmod(number, self._epoch_length)
        if epoch != self._epoch:
            order = self._shuffled(_generator(self.config.seed, _Use.ORDER, epoch))
            self._epoch, self._order = epoch, self._grouped(order, epoch * self._epoch_length)
        return int(self._order[place])

    def _shuffled(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """An epoch's pictures. Systematic sampling keeps every count within one of its factor."""
        order = rng.permutation(self._epoch_length)
        if self._factors is None:
            return order
        ends = np.cumsum(self._factors)
        ends *= self._epoch_length / ends[-1]
        chosen = np.searchsorted(ends, rng.random() + np.arange(self._epoch_length), side="right")
        return np.minimum(chosen, len(self._factors) - 1)[order]

    def _grouped(self, order: NDArray[np.int64], start: int) -> NDArray[np.int64]:
        """An epoch's pictures, so that its batches hold wide ones alone or none, as far as there are enough.

        A batch comes as soon as the order has brought enough of its kind (detectron2's way). At an epoch's
        end, and at its begin where it shares a batch with the one before, kinds are mixed.

        Args:
            order: of the epoch, shuffled.
            start: number of its first sample.
        """
        if self._wide is None:
            return order
        batch = self.config.batch
        head, rest = np.split(order, [min(-start % batch, len(order))])
        whole, left = [], []
        for kind in (True, False):
            places = np.flatnonzero(self._wide[rest] == kind)
            full = len(places) // batch * batch
            whole += list(places[:full].reshape(-1, batch))
            left.append(places[full:])
        whole.sort(key=lambda places: int(places[-1]))
        return np.concatenate([head, rest[np.concatenate([*whole, np.sort(np.concatenate(left))])]])

    def load(self, number: int, index: int) -> TrainingSample:
        """Reads and augments a sample; any thread may.

        Args:
            number: of the sample.
            index: what `index(number)` says.

        Raises:
            DatasetError: it cannot be read; the message names it.
        """
        try:
            raw = self.dataset[index]
            rng = _generator(self.config.seed, _Use.AUGMENTATION, number)
            picture, labels = augment(raw.picture, raw.labels, self.config, rng)
            return TrainingSample(
                name=raw.name,
                number=number,
                picture=torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))),
                target=to_target(labels, self._indices),
            )
        except DatasetError:
            raise
        except Exception as error:
            name = self.dataset.names[index]
            raise DatasetError(f"{name}: cannot be used: {type(error).__name__}: {error}") from error

    @contextmanager
    def batches(self, start: int, slots: slice) -> Iterator[Iterator[list[TrainingSample]]]:
        """Gives an endless iterator over the steps from `start` on, each the samples of these slots.

        Args:
            start: first step.
            slots: of this process in the batch.
        """
        cv2.setNumThreads(1)  # the threads here are the parallelism
        with closing(self._batches(start, range(self.config.batch)[slots])) as iterator:
            yield iterator

    def _batches(self, start: int, slots: range) -> Generator[list[TrainingSample], None, None]:
        batch, workers = self.config.batch, self.config.workers
        if workers == 0:
            step = start
            while True:
                numbers = [step * batch + slot for slot in slots]
                yield [self.load(number, self.index(number)) for number in numbers]
                step += 1
        ahead = -(-2 * workers // len(slots)) + 1  # steps: enough for every thread to have two in hand
        pool = ThreadPoolExecutor(workers, thread_name_prefix="samples")
        waiting: deque[list[Future[TrainingSample]]] = deque()
        step = start
        try:
            while True:
                while len(waiting) < ahead:
                    numbers = [step * batch + slot for slot in slots]
                    waiting.append([pool.submit(self.load, number, self.index(number)) for number in numbers])
                    step += 1
                yield [future.result() for future in waiting.popleft()]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def loss_generators(
    samples: Sequence[TrainingSample], seed: int, device: torch.device
) -> list[torch.Generator]:
    """A generator for each sample's random points, whatever batch or process it is in."""
    generators = []
    for sample in samples:
        state = np.random.SeedSequence((seed, _Use.LOSS, sample.number)).generate_state(1, np.uint64)
        generators.append(torch.Generator(device).manual_seed(int(state[0]) >> 1))
    return generators


def _generator(seed: int, use: _Use, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, use, number)))
