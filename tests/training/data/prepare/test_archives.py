"""Each public archive becomes the one layout: the exact labels, pictures and class lists."""

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from model.vocabulary.classes import Vocabulary
from tests.training.data.prepare import miniature
from training.data.layout import SegmentationFolder, check
from training.data.prepare.ade20k_ids import FULL_CODES
from training.data.prepare.archive import Protocol
from training.data.prepare.coco_stuff import MISSING
from training.data.prepare.convert import ARCHIVES, prepare
from training.data.prepare.pascal_context import COMMON_IDS
from training.data.protocol import read_differences
from training.errors import DatasetError


def labels_of(dst: Path, split: str) -> dict[str, list[list[int]]]:
    folder = SegmentationFolder(dst, split)
    check(folder, progress=False)
    return {sample.name: sample.labels.tolist() for sample in folder}


def class_list(dst: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((dst / "classes.json").read_text())
    return content


@pytest.mark.parametrize(
    ("name", "classes", "trained", "ignore"),
    [
        ("coco-stuff", 171, 171, 255),
        ("voc", 20, 20, 255),
        ("pascal-context-59", 59, 51, 255),
        ("pascal-context-459", 459, 94, 65535),
        ("ade20k-150", 150, 67, 255),
        ("ade20k-847", 847, 115, 65535),
    ],
)
def test_class_lists(tmp_path: Path, name: str, classes: int, trained: int, ignore: int) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    if name == "coco-stuff":
        miniature.coco_stuff(src, {"000000000009": [[0, 1, 2]] * 2}, "val2017")
    elif name == "voc":
        miniature.voc(src, {"val": {"2007_000033": [[0, 1, 2]] * 2}})
    elif name == "ade20k-150":
        miniature.ade20k_benchmark(src, {"validation": {"ADE_val_00000001": [[0, 1, 2]] * 2}})
    elif name == "ade20k-847":
        miniature.ade20k_full(
            src, "validation", "urban/street", "ADE_val_00000001", np.full((2, 3), FULL_CODES[0])
        )
    else:
        miniature.context(src, {"val": {"2008_000002": [[0, 1, 2]] * 2}})

    made = prepare(name, src, dst, splits=("val",), shown=False)

    assert (made.classes, made.trained, made.ignore) == (classes, trained, ignore)
    folder = SegmentationFolder(dst, "val")
    assert (len(folder.classes), sum(folder.trained), folder.ignore) == (classes, trained, ignore)
    assert folder.title == made.title == ARCHIVES[name].title
    expected = Vocabulary.builtin(ARCHIVES[name].vocabulary)
    assert class_list(dst)["classes"] == [
        {"name": item.name, "synonyms": list(item.synonyms), "trained": shown}
        for item, shown in zip(expected.classes, folder.trained, strict=True)
    ]


# --- COCO-Stuff


def test_coco_stuff(tmp_path: Path) -> None:
    src = miniature.coco_stuff(tmp_path / "src", {"000000000009": [[0, 10, 12], [181, 255, 91]]})
    miniature.coco_stuff(src, {"000000000025": [[11, 25, 90], [26, 89, 27]]})
    miniature.coco_stuff(src, {"000000000139": [[13, 24, 30], [43, 45, 66]]}, "val2017")

    prepare("coco-stuff", src, tmp_path / "dst", shown=False)

    assert labels_of(tmp_path / "dst", "train") == {
        "000000000009": [[0, 10, 11], [170, -1, 80]],
        "000000000025": [[-1, -1, -1], [24, 79, 25]],  # ids that COCO never drew are dropped
    }
    assert labels_of(tmp_path / "dst", "val") == {"000000000139": [[12, 23, 26], [39, 40, 60]]}
    copied = tmp_path / "dst" / "images" / "train" / "000000000009.jpg"
    assert copied.read_bytes() == (src / "train2017" / "000000000009.jpg").read_bytes()


def test_coco_stuff_names_agree_with_the_ids() -> None:
    kept = [value for value in range(182) if value not in MISSING]
    names = dict(zip(kept, Vocabulary.builtin("coco-stuff-171").names, strict=True))
    assert (names[0], names[12], names[89], names[181]) == ("person", "stop sign", "toothbrush", "wood")


@pytest.mark.parametrize(("pictures", "maps"), [("images", "annotations"), (".", "."), (".", "annotations")])
def test_coco_stuff_unpacked_elsewhere(tmp_path: Path, pictures: str, maps: str) -> None:
    src = tmp_path / "src"
    miniature.picture(src / pictures / "val2017" / "000000000139.jpg")
    miniature.grey(src / maps / "val2017" / "000000000139.png", [[0, 1, 2]] * 2)
    prepare("coco-stuff", src, tmp_path / "dst", splits=("val",), shown=False)
    assert labels_of(tmp_path / "dst", "val") == {"000000000139": [[0, 1, 2]] * 2}


# --- VOC


def test_voc(tmp_path: Path) -> None:
    train: dict[str, miniature.Rows] = {"2007_000032": [[0, 1, 20], [255, 2, 19]]}
    val: dict[str, miniature.Rows] = {"2007_000033": [[0, 0, 0], [5, 5, 255]]}
    augmented: dict[str, miniature.Rows] = {"2008_000008": [[0, 13, 15]] * 2}
    src = miniature.voc(tmp_path / "src", {"train": train, "val": val, "trainaug": augmented})
    dst = tmp_path / "dst"

    made = prepare("voc", src / "VOCdevkit" / "VOC2012", dst, shown=False)

    assert list(made.splits) == ["train", "val"]
    assert labels_of(dst, "train") == {"2007_000032": [[-1, 0, 19], [-1, 1, 18]]}
    assert labels_of(dst, "val") == {"2007_000033": [[-1, -1, -1], [4, 4, -1]]}
    prepare("voc", src, dst, splits=("trainaug",), shown=False)
    assert labels_of(dst, "trainaug") == {"2008_000008": [[-1, 12, 14]] * 2}


# --- ADE20K


def test_ade20k_150(tmp_path: Path) -> None:
    src = miniature.ade20k_benchmark(
        tmp_path / "src",
        {
            "training": {"ADE_train_00000001": [[0, 1, 150], [2, 149, 0]]},
            "validation": {"ADE_val_00000001": [[3, 3, 3]] * 2},
        },
    )
    prepare("ade20k-150", src, tmp_path / "dst", shown=False)
    assert labels_of(tmp_path / "dst", "train") == {"ADE_train_00000001": [[-1, 0, 149], [1, 148, -1]]}
    assert labels_of(tmp_path / "dst", "val") == {"ADE_val_00000001": [[2, 2, 2]] * 2}


def test_ade20k_847(tmp_path: Path) -> None:
    wall, building, last, no_class = 2978, 312, 3148, 1
    rows = np.array([[wall, building, last], [no_class, 0, 3156]])
    src = miniature.ade20k_full(tmp_path / "src", "training", "urban/street", "ADE_train_00000001", rows)
    miniature.ade20k_full(src, "training", "work_place/office", "ADE_train_00000002", rows[::-1])
    miniature.ade20k_full(src, "validation", "urban/street", "ADE_val_00000001", rows[:1])

    prepare("ade20k-847", src, tmp_path / "dst", shown=False)

    expected = [[0, 1, 846], [-1, -1, 358]]
    assert labels_of(tmp_path / "dst", "train") == {
        "ADE_train_00000001": expected,
        "ADE_train_00000002": expected[::-1],
    }
    assert labels_of(tmp_path / "dst", "val") == {"ADE_val_00000001": expected[:1]}


def test_ade20k_847_shrinks_large_pictures(tmp_path: Path) -> None:
    rows = np.full((520, 521), FULL_CODES[5])
    rows[:, 260:] = FULL_CODES[400]  # column 260 of 521 is column 256.01 of 513
    src = miniature.ade20k_full(tmp_path / "src", "validation", "cultural/apse", "ADE_val_00000001", rows)
    prepare("ade20k-847", src, tmp_path / "dst", splits=("val",), shown=False)

    sample = SegmentationFolder(tmp_path / "dst", "val")[0]
    assert sample.picture.shape == (512, 513, 3)
    assert sample.labels.shape == (512, 513)
    assert np.unique(sample.labels[:, :256]).tolist() == [5]
    assert np.unique(sample.labels[:, 256:]).tolist() == [400]
    np.testing.assert_allclose(sample.picture.mean((0, 1)), [90, 45, 10], atol=3)


def test_ade20k_codes_run_with_the_names() -> None:
    """The release numbers its objects in the order of their names, but for some added later."""
    names = Vocabulary.builtin("ade20k-847").names
    assert len(set(FULL_CODES)) == len(FULL_CODES) == len(names) == 847
    first = sorted((code, name.lower()) for code, name in zip(FULL_CODES, names, strict=True) if code <= 3100)
    assert [name for _, name in first] == sorted(name for _, name in first)
    assert len(first) == 827


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    rows = np.full((2, 3), FULL_CODES[0])
    src = miniature.ade20k_full(tmp_path / "src", "validation", "a/b", "ADE_val_00000001", rows)
    miniature.ade20k_full(src, "validation", "a/c", "ADE_val_00000001", rows)
    with pytest.raises(
        DatasetError, match=r"b/ADE_val_00000001\S* and \S*c/ADE_val_00000001\S* have one name"
    ):
        prepare("ade20k-847", src, tmp_path / "dst", splits=("val",), shown=False)


# --- PASCAL Context


def test_pascal_context_459(tmp_path: Path) -> None:
    src = miniature.context(
        tmp_path / "src",
        {"train": {"2008_000002": [[1, 459, 256]] * 2}, "val": {"2008_000003": [[0, 257, 300]] * 2}},
    )
    made = prepare("pascal-context-459", src, tmp_path / "dst", shown=False)
    assert labels_of(tmp_path / "dst", "train") == {"2008_000002": [[0, 458, 255]] * 2}
    assert labels_of(tmp_path / "dst", "val") == {"2008_000003": [[-1, 256, 299]] * 2}
    assert made.source.startswith("maps of ")
    assert made.source.endswith("Main")


def test_pascal_context_59_from_maps(tmp_path: Path) -> None:
    src = miniature.context(
        tmp_path / "src",
        {"train": {"2008_000002": [[2, 458, 397], [1, 0, 9]]}, "val": {"2008_000003": [[459, 258, 22]] * 2}},
    )
    prepare("pascal-context-59", src, tmp_path / "dst", shown=False)
    assert labels_of(tmp_path / "dst", "train") == {"2008_000002": [[0, 58, 49], [-1, -1, 1]]}
    assert labels_of(tmp_path / "dst", "val") == {"2008_000003": [[-1, 33, 4]] * 2}


def test_pascal_context_59_from_masks(tmp_path: Path) -> None:
    """Run lengths go down the columns; a later mask lies over an earlier one; the rest is background."""
    val: dict[str, miniature.Rows] = {"2008_000003": [[1, 1, 1]] * 2, "2008_000004": [[1, 1, 1]] * 2}
    src = miniature.context(tmp_path / "src", {"train": {}, "val": val})
    path = miniature.detail(
        src, {"val": {"2008_000003": [(2, [0, 4, 2]), (458, "321")], "2008_000009": []}, "test": {}}
    )
    with pytest.raises(DatasetError, match=r"JPEGImages/2008_000009\.jpg is missing"):
        prepare("pascal-context-59", src, tmp_path / "dst", splits=("val",), shown=False)
    miniature.picture(src / "VOCdevkit" / "VOC2010" / "JPEGImages" / "2008_000009.jpg")

    made = prepare("pascal-context-59", src, tmp_path / "dst", splits=("val",), shown=False)

    assert labels_of(tmp_path / "dst", "val") == {
        "2008_000003": [[0, 0, 58], [0, 58, -1]],
        "2008_000009": [[-1, -1, -1]] * 2,
    }
    assert made.source == f"masks of {path}"


def test_pascal_context_459_takes_the_lists_of_pascal_in_detail(tmp_path: Path) -> None:
    val: dict[str, miniature.Rows] = {"2008_000003": [[1, 2, 3]] * 2, "2008_000004": [[4, 5, 6]] * 2}
    src = miniature.context(tmp_path / "src", {"val": val})
    path = miniature.detail(src, {"val": {"2008_000004": [(2, [0, 6])]}})
    made = prepare("pascal-context-459", src, tmp_path / "dst", splits=("val",), shown=False)
    assert labels_of(tmp_path / "dst", "val") == {"2008_000004": [[3, 4, 5]] * 2}
    assert made.source.endswith(f"lists of {path}")


def test_common_ids_name_the_same_classes_in_both_lists() -> None:
    all_names = Vocabulary.builtin("pascal-context-459").names
    common = Vocabulary.builtin("pascal-context-59").names
    chosen = [all_names[number - 1] for number in COMMON_IDS]
    assert [name.replace("diningtable", "table") for name in common] == chosen


# --- the official protocol


def test_ade20k_847_officially(tmp_path: Path) -> None:
    """Shrunk by OpenCV and saved at quality 75; what is not shrunk stays as it is."""
    rng = np.random.default_rng(0)
    large = np.kron(rng.choice([2978, 312], (16, 22)), np.ones((64, 64), np.int64))
    src = miniature.ade20k_full(tmp_path / "src", "validation", "urban", "ADE_val_00000001", large)
    miniature.ade20k_full(src, "validation", "urban", "ADE_val_00000002", np.full((20, 30), 312))
    noise = rng.integers(0, 256, (*large.shape, 3)).astype(np.uint8)
    file = src / "ADE20K_2021_17_01/images/ADE/validation/urban/ADE_val_00000001.jpg"
    Image.fromarray(noise).save(file, quality=90)
    protocols: tuple[Protocol, Protocol] = ("official", "own")
    for protocol in protocols:
        prepare("ade20k-847", src, tmp_path / protocol, splits=["val"], protocol=protocol, shown=False)
    folder = SegmentationFolder(tmp_path / "official", "val")
    assert [sample.labels.shape for sample in folder] == [(512, 704), (20, 30)]
    with Image.open(file) as stored:
        shrunk = cv2.resize(np.asarray(stored), (704, 512), interpolation=cv2.INTER_LINEAR)
    saved = io.BytesIO()
    Image.fromarray(shrunk).save(saved, "JPEG", quality=75)
    assert folder.files("ADE_val_00000001")[0].read_bytes() == saved.getvalue()
    labels = np.where(large == 2978, FULL_CODES.index(2978), FULL_CODES.index(312)).astype(np.int32)
    wanted = cv2.resize(labels, (704, 512), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(folder[0].labels, wanted)
    assert read_differences(tmp_path / "official") == ()
    assert "quality 95" in read_differences(tmp_path / "own")[0]
    with pytest.raises(DatasetError, match="by another protocol"):
        prepare("ade20k-847", src, tmp_path / "own", splits=["val"], protocol="official", shown=False)


def test_voc_officially(tmp_path: Path) -> None:
    src = miniature.voc(tmp_path / "src", {"val": {"2007_000033": [[0, 0, 0], [5, 5, 255]]}})
    prepare("voc", src, tmp_path / "without", splits=["val"], protocol="official", shown=False)
    assert "SegmentationClassAug" in read_differences(tmp_path / "without")[0]
    maps = src / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    miniature.grey(maps / "2007_000033.png", [[7, 7, 7], [5, 5, 255]])
    prepare("voc", src, tmp_path / "with", splits=["val"], protocol="official", shown=False)
    assert labels_of(tmp_path / "with", "val") == {"2007_000033": [[6, 6, 6], [4, 4, -1]]}
    assert read_differences(tmp_path / "with") == ()
    prepare("voc", src, tmp_path / "own", splits=["val"], shown=False)
    assert labels_of(tmp_path / "own", "val") == {"2007_000033": [[-1, -1, -1], [4, 4, -1]]}
    assert read_differences(tmp_path / "own") == read_differences(tmp_path / "without")


@pytest.mark.parametrize(("name", "differences"), [("pascal-context-59", 2), ("pascal-context-459", 1)])
def test_pascal_context_officially(name: str, differences: int, tmp_path: Path) -> None:
    """Lists and, for 59 classes, masks are those of PASCAL in Detail; VOC's have one picture more."""
    rows: miniature.Rows = [[2, 9, 18]] * 2
    src = miniature.context(tmp_path / "src", {"val": {"2008_000002": rows, "2008_000003": rows}})
    with pytest.raises(DatasetError, match=r"takes its lists from .*trainval_merged\.json, which is missing"):
        prepare(name, src, tmp_path / "dst", splits=["val"], protocol="official", shown=False)
    prepare(name, src, tmp_path / "own", splits=["val"], shown=False)
    assert "5,104" in read_differences(tmp_path / "own")[0]
    assert len(read_differences(tmp_path / "own")) == differences
    miniature.detail(src, {"val": {"2008_000002": [(2, [0, 6])]}})
    prepare(name, src, tmp_path / "dst", splits=["val"], protocol="official", shown=False)
    assert list(labels_of(tmp_path / "dst", "val")) == ["2008_000002"]
    assert read_differences(tmp_path / "dst") == ()
