"""The order of samples, what is drawn for them, and loading ahead."""

import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from model.vocabulary.classes import Vocabulary
from tests.training.run.runs import CLASSES, scene
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.pictures import read_picture
from training.data.samples import RawSample, Samples, TrainingSample, loss_generators
from training.data.writing import write_classes, write_sample
from training.errors import DatasetError

CONFIG = TrainConfig(data="d", variant="tiny", batch=4, crop=64, short_sides=(48, 64, 80), workers=0)


@dataclass(frozen=True)
class Scene:
    name: str
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass
class Scenes:
    """A data set in memory; `broken` pictures cannot be read."""

    count: int = 5
    broken: tuple[int, ...] = ()
    error: type[Exception] = OSError
    read: list[int] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return [f"scene{number}" for number in range(self.count)]

    @property
    def trained(self) -> Sequence[bool]:
        return [name != "yellow" for name in CLASSES]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> RawSample:
        self.read.append(index)
        if index in self.broken:
            raise self.error("scene2.jpg is cut off")
        return Scene(self.names[index], *scene(np.random.default_rng(index)))


def some(samples: Samples, start: int, steps: int, slots: slice = slice(None)) -> list[list[TrainingSample]]:
    with samples.batches(start, slots) as batches:
        return [next(batches) for _ in range(steps)]


def assert_equal(found: TrainingSample, wanted: TrainingSample) -> None:
    assert (found.name, found.number) == (wanted.name, wanted.number)
    assert torch.equal(found.picture, wanted.picture)
    assert torch.equal(found.target.labels, wanted.target.labels)
    assert torch.equal(found.target.masks, wanted.target.masks)


def test_every_epoch_shows_each_picture_once() -> None:
    samples = Samples(Scenes(7), CONFIG)
    epochs = [[samples.index(epoch * 7 + place) for place in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    other = Samples(Scenes(7), dataclasses.replace(CONFIG, seed=1))
    assert [other.index(place) for place in range(7)] != epochs[0]


def test_batches_of_one_shape() -> None:
    """17 pictures in batches of 4: epochs begin within a batch, and kinds mix there and at their ends."""
    wide = np.arange(17) % 3 > 0
    samples = Samples(Scenes(17), CONFIG, wide=wide)
    numbers = [samples.index(number) for number in range(17 * 8)]
    for epoch in range(8):
        assert sorted(numbers[17 * epoch : 17 * epoch + 17]) == list(range(17))
    batches = np.array(numbers).reshape(-1, 4)
    alike = [len(set(wide[batch])) == 1 for batch in batches]
    plain = Samples(Scenes(17), CONFIG)
    chance = [len({bool(wide[plain.index(4 * step + slot)]) for slot in range(4)}) == 1 for step in range(34)]
    assert sum(alike) >= 16 > sum(chance)
    assert all(alike[:2])
    again = Samples(Scenes(17), CONFIG, wide=wide)
    assert [again.index(number) for number in (100, 3, 50)] == [numbers[n] for n in (100, 3, 50)]


def test_order_is_a_function_of_the_number() -> None:
    forwards = Samples(Scenes(), CONFIG)
    backwards = Samples(Scenes(), CONFIG)
    numbers = range(23)
    assert [forwards.index(n) for n in numbers] == [backwards.index(n) for n in reversed(numbers)][::-1]


def test_going_on_shows_what_would_have_come() -> None:
    whole = some(Samples(Scenes(), CONFIG), 0, 5)
    rest = some(Samples(Scenes(), CONFIG), 3, 2)
    for found, wanted in zip(rest, whole[3:], strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other)
    assert [sample.number for sample in whole[4]] == [16, 17, 18, 19]
    assert not torch.equal(whole[0][0].picture, some(Samples(Scenes(1), CONFIG), 1, 1)[0][0].picture)


def test_processes_share_the_batch() -> None:
    whole = some(Samples(Scenes(), CONFIG), 2, 1)[0]
    parts = [some(Samples(Scenes(), CONFIG), 2, 1, slice(at, at + 2))[0] for at in (0, 2)]
    for found, wanted in zip([*parts[0], *parts[1]], whole, strict=True):
        assert_equal(found, wanted)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing_and_end(workers: int) -> None:
    before = threading.active_count()
    plain = some(Samples(Scenes(), CONFIG), 0, 4)
    threaded = some(Samples(Scenes(), dataclasses.replace(CONFIG, workers=workers)), 0, 4)
    for found, wanted in zip(threaded, plain, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other)
    assert threading.active_count() == before


def test_reading_ahead_is_bounded() -> None:
    scenes = Scenes()
    with Samples(scenes, dataclasses.replace(CONFIG, workers=2)).batches(0, slice(None)) as batches:
        next(batches)
        time.sleep(0.2)
        assert len(scenes.read) <= 3 * CONFIG.batch


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_is_named(workers: int) -> None:
    before = threading.active_count()
    samples = Samples(Scenes(broken=(2,)), dataclasses.replace(CONFIG, workers=workers))
    with pytest.raises(DatasetError, match=r"scene2: cannot be used: OSError: scene2\.jpg is cut off"):
        some(samples, 0, 2)
    assert threading.active_count() == before
    own = Samples(Scenes(broken=(2,), error=DatasetError), CONFIG)
    with pytest.raises(DatasetError, match=r"^scene2\.jpg is cut off$"):
        some(own, 0, 2)


def test_what_a_sample_is() -> None:
    sample = Samples(Scenes(), CONFIG).load(3, 1)
    assert (sample.name, sample.number) == ("scene1", 3)
    assert sample.picture.shape == (3, 64, 64)
    assert sample.picture.dtype == torch.uint8
    assert sample.target.masks.shape == (len(sample.target.labels), 64, 64)
    assert sample.target.masks.dtype == torch.bool
    assert set(sample.target.labels.tolist()) <= {0, 1, 2}


def test_loss_points_belong_to_the_sample() -> None:
    batch = some(Samples(Scenes(), CONFIG), 0, 1)[0]
    draws = [torch.rand(4, generator=x).tolist() for x in loss_generators(batch, 0, torch.device("cpu"))]
    alone = loss_generators(batch[2:3], 0, torch.device("cpu"))[0]
    assert torch.rand(4, generator=alone).tolist() == draws[2]
    assert len({tuple(draw) for draw in draws}) == 4
    other = loss_generators(batch[:1], 1, torch.device("cpu"))[0]
    assert torch.rand(4, generator=other).tolist() != draws[0]


def test_a_picture_costs_little_processor_time(tmp_path: Path) -> None:
    """10.6 ms of a COCO-Stuff picture where its JPEG takes 1.7 to read; with classes sorted out it was 41."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    noise = rng.integers(-8, 9, picture.shape)
    labels = np.kron(rng.integers(0, 171, (6, 8)), np.ones((80, 80), np.int64))
    write_sample(tmp_path, "train", "0", (picture + noise).clip(0, 255).astype(np.uint8), labels)
    write_classes(tmp_path, Vocabulary.builtin("coco-stuff-171").classes, [True] * 171, 255, "large")
    folder = SegmentationFolder(tmp_path, "train")
    samples = Samples(folder, TrainConfig(data="d", variant="base", workers=0))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        loads, reads = [], []
        for number in range(24):  # in turn, so that both see the same machine
            loads.append(_cost(partial(samples.load, number, 0)))
            reads.append(_cost(partial(read_picture, folder.files("0")[0])))
    finally:
        cv2.setNumThreads(threads)
    assert statistics.median(loads) < 14 * statistics.median(reads)


def _cost(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
