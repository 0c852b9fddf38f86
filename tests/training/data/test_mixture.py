"""Several data sets in one run: class lists put together, weights, rare classes repeated."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.storage.checkpoint import load
from model.vocabulary.classes import ClassName
from tests.training.run.runs import CLASSES, log_of, micro_run, scene, write_dataset
from training.config import TrainConfig
from training.data.layout import SegmentationFolder
from training.data.mixture import Mixture
from training.data.samples import Samples
from training.data.writing import write_classes, write_sample
from training.errors import DatasetError, TrainingError
from training.run.trainer import train


def data_set(folder: Path, classes: list[ClassName], trained: list[bool], ignore: int = 255) -> Path:
    """One picture a class, of that class alone but for an ignored row; numbered names."""
    for k in range(len(classes)):
        labels = np.full((4, 6), k)
        labels[0] = -1
        write_sample(folder, "train", f"p{k}", np.full((4, 6, 3), 40 * k, np.uint8), labels, ignore=ignore)
    write_classes(folder, classes, trained, ignore, folder.name)
    return folder


@pytest.fixture
def farm(tmp_path: Path) -> SegmentationFolder:
    classes = [
        ClassName(name="cow"),
        ClassName(name="grass", synonyms=("grass", "meadow")),
        ClassName(name="barn"),
    ]
    return SegmentationFolder(data_set(tmp_path / "farm", classes, [True, True, False]), "train")


@pytest.fixture
def street(tmp_path: Path) -> SegmentationFolder:
    classes = [
        ClassName(name="car"),
        ClassName(name="Meadow"),
        ClassName(name="cattle", synonyms=("cattle", "cow")),
        ClassName(name="hut", synonyms=("barn",)),
    ]
    return SegmentationFolder(
        data_set(tmp_path / "street", classes, [True, True, True, False], 65535), "train"
    )


def test_class_lists_are_merged_by_name_and_synonym(
    farm: SegmentationFolder, street: SegmentationFolder
) -> None:
    both = Mixture([farm, street], [1, 1])
    assert [item.name for item in both.classes] == ["cow", "grass", "barn", "car"]
    assert both.trained == (True, True, False, True)
    assert both.classes[0].synonyms == ("cow", "cattle")
    assert both.classes[1].synonyms == ("grass", "meadow", "Meadow")
    assert [item.name for item in both.training_classes().classes] == ["cow", "grass", "car"]
    assert both.names == [*(f"farm/p{k}" for k in range(3)), *(f"street/p{k}" for k in range(4))]
    found = [int(sample.labels.max()) for sample in (both[index] for index in range(len(both)))]
    assert found == [0, 1, 2, 3, 1, 0, 2]
    assert all((both[index].labels[0] == -1).all() for index in range(len(both)))


def test_a_name_goes_before_a_synonym(tmp_path: Path) -> None:
    first = data_set(
        tmp_path / "a", [ClassName(name="seat", synonyms=("bench",)), ClassName(name="bench")], [True] * 2
    )
    second = data_set(tmp_path / "b", [ClassName(name="bench")], [True])
    both = Mixture([SegmentationFolder(path, "train") for path in (first, second)], [1, 1])
    assert int(both[2].labels.max()) == 1


def test_classes_of_one_data_set_stay_apart(tmp_path: Path) -> None:
    alike = [ClassName(name="dirt", synonyms=("ground",)), ClassName(name="floor", synonyms=("ground",))]
    one = Mixture([SegmentationFolder(data_set(tmp_path / "a", alike, [True] * 2), "train")], [1])
    assert [item.name for item in one.classes] == ["dirt", "floor"]
    assert one.names == ["p0", "p1"]
    assert one.factors(0) is None


def test_a_held_out_class_is_not_trained_by_another_data_set(
    tmp_path: Path, farm: SegmentationFolder
) -> None:
    other = SegmentationFolder(data_set(tmp_path / "other", [ClassName(name="barn")], [True]), "train")
    for folders in ([farm, other], [other, farm]):
        with pytest.raises(DatasetError, match=r"the class 'barn' is new in .* which would show its masks"):
            Mixture(folders, [1, 1])


def counted(samples: Samples, epochs: int, length: int) -> Counter[int]:
    return Counter(samples.index(number) for number in range(epochs * length))


def test_weights_say_how_often_pictures_come(farm: SegmentationFolder, street: SegmentationFolder) -> None:
    both = Mixture([farm, street], [1, 2.25])
    factors = both.factors(0)
    assert factors is not None
    assert factors.tolist() == [1] * 3 + [2.25] * 4
    samples = Samples(both, TrainConfig(data="d", variant="tiny"), factors)
    for epoch in range(3):  # 12 pictures each
        one = Counter(samples.index(12 * epoch + place) for place in range(12))
        assert [one[k] for k in range(3)] == [1] * 3
        assert all(one[k] in (2, 3) for k in range(3, 7))
    many = counted(samples, 200, 12)
    assert sum(many[k] for k in range(3, 7)) == 200 * 9
    assert all(abs(many[k] / 200 - 2.25) < 0.15 for k in range(3, 7))
    again = Samples(both, TrainConfig(data="d", variant="tiny"), factors)
    assert [again.index(number) for number in (30, 5, 17)] == [
        samples.index(number) for number in (30, 5, 17)
    ]


def test_less_than_once(farm: SegmentationFolder, street: SegmentationFolder) -> None:
    both = Mixture([farm, street], [1, 0.25])
    samples = Samples(both, TrainConfig(data="d", variant="tiny"), both.factors(0))
    many = counted(samples, 100, 4)
    assert sum(many[k] for k in range(3, 7)) == 100
    assert all(many[k] == 100 for k in range(3))


def test_equal_weights_leave_the_order_as_it_was(
    farm: SegmentationFolder, street: SegmentationFolder
) -> None:
    both = Mixture([farm, street], [1, 1])
    plain = Samples(both, TrainConfig(data="d", variant="tiny"))
    one = Samples(both, TrainConfig(data="d", variant="tiny"), np.ones(len(both)))
    for samples in (plain, one):
        assert sorted(samples.index(number) for number in range(7)) == list(range(7))
    assert both.factors(0) is None


def test_rare_classes_are_repeated(tmp_path: Path) -> None:
    """Red is in each of 100 pictures, green in 4, of which one shows yellow, which is new."""
    for number in range(100):
        labels = np.zeros((4, 4), int)
        labels[1] = -1
        if number < 4:
            labels[2] = 1
        if number == 0:
            labels[3] = 3
        write_sample(tmp_path, "train", f"{number:03}", np.zeros((4, 4, 3), np.uint8), labels)
    write_classes(tmp_path, [ClassName(name=name) for name in CLASSES], [True, True, True, False], 255, "x")
    found = Mixture([SegmentationFolder(tmp_path, "train")], [1]).factors(0.36, shown=False)
    assert found is not None
    assert found == pytest.approx([3] * 4 + [1] * 96)  # sqrt(0.36 / 0.04)


def test_a_run_on_two_data_sets(tmp_path: Path) -> None:
    config = micro_run(tmp_path, val_split="val", steps=3)
    rng = np.random.default_rng(3)
    for number in range(3):
        picture, labels = scene(rng)
        write_sample(tmp_path / "more", "train", f"m{number}", picture, np.minimum(labels, 1))
    write_classes(
        tmp_path / "more",
        [ClassName(name="crimson", synonyms=("red",)), ClassName(name="pale")],
        [True] * 2,
        255,
        "More",
    )
    mixed = TrainConfig.from_dict(
        config.to_dict() | {"extra_data": [f"{tmp_path / 'more'}=2"], "repeat_rare": 0.5}
    )
    run = train(mixed, tmp_path / "run", max_steps=2)
    train(mixed, run)
    assert len(log_of(run)) == 3
    loaded = load(run / "checkpoint")
    assert [item.name for item in loaded.ebseg.training_classes.classes] == ["red", "green", "blue", "pale"]
    assert loaded.manifest.training["extra_data"] == ["more=2"]
    card = loaded.manifest.card
    assert card is not None
    assert [source.name for source in card.training_data] == ["micro", "More"]
    assert card.domain == "images like those of micro, More"
    whole = train(mixed, tmp_path / "whole")
    assert [line["loss"] for line in log_of(whole)] == [line["loss"] for line in log_of(run)]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("x=much",), "'x=much' must be PATH or PATH=WEIGHT"),
        (("x=0",), "the weight of 'x' must be more than 0, got 0"),
        (("x=nan",), "the weight of 'x' must be more than 0, got nan"),
        (("=2",), "the weight of ''"),
        (("d",), "d is named twice"),
        (("x", "x=2"), "x is named twice"),
    ],
)
def test_wrong_sources(extra: tuple[str, ...], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        TrainConfig(data="d", variant="tiny", extra_data=extra)
    with pytest.raises(TrainingError, match="repeat_rare is a share"):
        TrainConfig(data="d", variant="tiny", repeat_rare=2)


def test_an_unreadable_label_map_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "labels" / "train" / "train3.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"train3\.png cannot be read"):
        Mixture([SegmentationFolder(tmp_path, "train")], [1]).factors(0.1, shown=False)


def test_wide_pictures_are_told_by_their_heads(
    farm: SegmentationFolder, street: SegmentationFolder, tmp_path: Path
) -> None:
    path = tmp_path / "street" / "images" / "train" / "p1.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    with Image.open(path) as image:
        image.copy().save(path, exif=turned)
    Image.new("RGB", (4, 4)).save(path.with_name("p2.jpg"))
    assert Mixture([farm, street], [1, 1]).wide().tolist() == [True, True, True, True, False, False, True]
    path.write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"p1\.jpg cannot be read"):
        Mixture([street], [1]).wide()


def test_a_run_with_batches_of_one_shape(tmp_path: Path) -> None:
    config = micro_run(tmp_path, steps=2, group_by_shape=True, class_loss="process")
    assert len(log_of(train(config, tmp_path / "run"))) == 2
