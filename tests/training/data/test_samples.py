"""The order of samples, what is drawn for them, and loading ahead."""

import dataclasses
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from tests.training.run.runs import CLASSES, scene
from training.config import TrainConfig
from training.data.samples import RawSample, Samples, TrainingSample, loss_generators
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
