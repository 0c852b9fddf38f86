"""Data sets in the one layout: what is written comes back, and what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.storage import files
from model.vocabulary.classes import ClassName, TrainingClasses
from training.data.layout import SegmentationFolder, check, labels_path, picture_path
from training.data.writing import write_classes, write_sample
from training.errors import DatasetError

CLASSES = (ClassName(name="sky"), ClassName(name="boat", synonyms=("boat", "ship")), ClassName(name="sea"))
LABELS = np.array([[0, 0, 1], [2, 1, -1]])
PICTURE = np.full((2, 3, 3), (200, 100, 50), np.uint8)


def build(root: Path, names: tuple[str, ...] = ("a", "b"), ignore: int = 255) -> Path:
    for name in names:
        write_sample(root, "val", name, PICTURE, LABELS, ignore=ignore)
    write_classes(root, CLASSES, (True, False, True), ignore, "Harbours")
    return root


def put_labels(root: Path, image: Image.Image, name: str = "a") -> Path:
    path = labels_path(root, "val", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.mark.parametrize(("ignore", "mode"), [(255, "L"), (65535, "I;16")])
def test_what_is_written_comes_back(tmp_path: Path, ignore: int, mode: str) -> None:
    folder = SegmentationFolder(build(tmp_path, ("b", "a"), ignore), "val")

    assert (folder.names, len(folder), folder.title, folder.ignore) == (["a", "b"], 2, "Harbours", ignore)
    assert folder.classes == CLASSES
    assert folder.trained == (True, False, True)
    sample = folder[1]
    width = "int16" if ignore == 255 else "int32"
    assert (sample.name, str(sample.labels.dtype), str(sample.picture.dtype)) == ("b", width, "uint8")
    assert sample.labels.tolist() == LABELS.tolist()
    np.testing.assert_allclose(sample.picture, PICTURE, atol=3)
    assert [item.name for item in folder] == ["a", "b"]
    with Image.open(labels_path(tmp_path, "val", "a")) as stored:
        assert stored.mode == mode
        assert np.asarray(stored).tolist() == [[0, 0, 1], [2, 1, ignore]]


def test_labels_above_255(tmp_path: Path) -> None:
    labels = np.array([[0, 255, 299]])
    write_sample(tmp_path, "val", "a", PICTURE[:1], labels, ignore=65535)
    many = [ClassName(name=f"class {index}") for index in range(300)]
    write_classes(tmp_path, many, [True] * 300, 65535, "")

    assert SegmentationFolder(tmp_path, "val")[0].labels.tolist() == labels.tolist()
    with pytest.raises(DatasetError, match='300 classes need "ignore": 65535'):
        write_classes(tmp_path, many, [True] * 300, 255, "")


def test_vocabulary_and_training_classes(tmp_path: Path) -> None:
    folder = SegmentationFolder(build(tmp_path), "val")

    vocabulary = folder.vocabulary()
    assert vocabulary.names == ["sky", "boat", "sea"]
    assert [item.trained for item in vocabulary.classes] == [True, False, True]
    assert TrainingClasses.coco_stuff().matches(vocabulary) == [True, False, True]
    assert [item.name for item in folder.training_classes().classes] == ["sky", "sea"]
    write_classes(tmp_path, CLASSES, (False, False, False), 255, "")
    with pytest.raises(DatasetError, match="no class has"):
        SegmentationFolder(tmp_path, "val").training_classes()


def test_a_class_list_by_hand_needs_names_only(tmp_path: Path) -> None:
    build(tmp_path)
    rows: list[dict[str, Any]] = [{"name": "sky"}, {"name": "boat", "trained": False}, {"name": "sea"}]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": rows, "ignore": 255}))

    folder = SegmentationFolder(tmp_path, "val")
    assert (folder.trained, folder.title) == ((True, False, True), "")


def test_pictures_of_any_mode_are_read_upright(tmp_path: Path) -> None:
    build(tmp_path, ("a",))
    colour = Image.fromarray(PICTURE)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture_path(tmp_path, "val", "a").unlink()
    for image in (colour.convert("P"), colour.convert("RGBA"), colour, colour.convert("L").convert("LA")):
        image.transpose(Image.Transpose.ROTATE_90).save(picture_path(tmp_path, "val", "a", ".png"), exif=exif)
        picture = SegmentationFolder(tmp_path, "val")[0].picture
        assert (picture.shape, str(picture.dtype)) == ((2, 3, 3), "uint8")
        assert np.array_equal(picture, np.asarray(image.convert("RGB")))


def test_palette_labels_are_the_indices(tmp_path: Path) -> None:
    build(tmp_path, ("a",))
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 255]], np.uint8)).convert("L")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] + 759 * [7])
    put_labels(tmp_path, image)
    assert SegmentationFolder(tmp_path, "val")[0].labels.tolist() == [[0, 1, 2], [2, 1, -1]]
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8)).convert("L")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = put_labels(tmp_path, image)
    image.save(path, bits=2)
    assert SegmentationFolder(tmp_path, "val")[0].labels.tolist() == [[0, 1, 2], [2, 1, 0]]


def grey(values: Any, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(values, dtype))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(PICTURE), r"a\.png is no label map: .* got mode RGB"),
        (grey([[0, 1], [1, 0]]).convert("1"), "got mode 1"),
        (grey([[0, 1, 2]]), r"a\.png is 3 x 1 pixels, its image a\.jpg is 3 x 2"),
        (grey([[0, 1, 3], [7, 9, 3]]), "a.png holds labels 3, 7, 9, but labels go from 0 to 2 and 255"),
        (grey([[0, 1, 2], [0, 1, 65535]], np.uint16), "holds labels 65535"),
    ],
)
def test_wrong_label_maps_are_named(tmp_path: Path, image: Image.Image, message: str) -> None:
    folder = SegmentationFolder(build(tmp_path), "val")
    put_labels(tmp_path, image)
    with pytest.raises(DatasetError, match=message):
        folder[0]
    assert folder[1].name == "b"


def test_grey_of_four_bits_is_refused(tmp_path: Path) -> None:
    folder = SegmentationFolder(build(tmp_path), "val")
    # Pillow reads such files, but writes none: 3 x 2 pixels of the values 1, 2, 0 / 0, 1, 2.
    labels_path(tmp_path, "val", "a").write_bytes(png_of_four_bits([b"\x12\x00", b"\x01\x20"]))
    with pytest.raises(DatasetError, match="mode L of fewer bits"):
        folder[0]


def png_of_four_bits(rows: list[bytes]) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 3, 2, 4, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_check_lists_all_problems(tmp_path: Path) -> None:
    root = build(tmp_path, tuple(f"p{index:02}" for index in range(24)))
    folder = SegmentationFolder(root, "val")
    check(folder, progress=False)
    for index in range(22):
        put_labels(root, grey([[9]]), f"p{index:02}")
    picture_path(root, "val", "p22").write_bytes(b"no picture")

    with pytest.raises(DatasetError) as caught:
        check(folder, progress=False)
    lines = str(caught.value).split("\n")
    assert lines[0].endswith("val: 23 problems")
    assert len(lines) == 1 + 20 + 1
    assert "p00.png is 1 x 1" in lines[1]
    assert lines[-1].strip() == "... and 3 more"


def test_unpaired_files_are_listed(tmp_path: Path) -> None:
    root = build(tmp_path, ("a", "b", "c"))
    labels_path(root, "val", "a").unlink()
    picture_path(root, "val", "b").unlink()
    Image.fromarray(PICTURE).save(picture_path(root, "val", "c", ".png"))
    (root / "images" / "val" / ".c.half.jpg").write_bytes(b"an interrupted write")

    with pytest.raises(DatasetError) as caught:
        SegmentationFolder(root, "val")
    text = str(caught.value)
    assert "val: 3 problems" in text
    assert f"{picture_path(root, 'val', 'a')} has no label map" in text
    assert f"{labels_path(root, 'val', 'b')} has no image" in text
    assert "c.jpg and c.png are two images of one name" in text


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"classes\.json is missing: .* is no data set"):
        SegmentationFolder(tmp_path, "val")
    build(tmp_path)
    with pytest.raises(DatasetError, match="is the split's name 'train' right; there is val"):
        SegmentationFolder(tmp_path, "train")
    (tmp_path / "images" / "empty").mkdir()
    (tmp_path / "labels" / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no images"):
        SegmentationFolder(tmp_path, "empty")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "must be an object"),
        ('{"classes": [{"name": "a"}]}', "must be an object"),
        ('{"classes": [{"name": "a"}], "ignore": 254}', '"ignore" must be 255 or 65535'),
        ('{"classes": [{"name": "a"}], "ignore": [255]}', '"ignore" must be 255 or 65535'),
        ('{"classes": ["a"], "ignore": 255}', "list of objects"),
        ('{"classes": [{"name": "a", "colour": 1}], "ignore": 255}', "class 0 must have"),
        ('{"classes": [{"name": "a", "trained": "no"}], "ignore": 255}', "true or false"),
        ('{"classes": [{"name": "a", "synonyms": "b"}], "ignore": 255}', '"synonyms" must be a list'),
        (
            '{"classes": [{"name": "a", "synonyms": [1]}], "ignore": 255}',
            "synonyms must be a list of strings",
        ),
        ('{"classes": [{"name": "a"}, {"name": "A "}], "ignore": 255}', "is given twice"),
        ('{"classes": [], "ignore": 255}', "empty"),
    ],
)
def test_wrong_class_lists(tmp_path: Path, content: str, message: str) -> None:
    build(tmp_path)
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(DatasetError, match=message) as caught:
        SegmentationFolder(tmp_path, "val")
    assert "classes.json" in str(caught.value)


def _floats(root: Path) -> None:
    write_sample(root, "val", "a", PICTURE, LABELS.astype(np.float32))


def _outside(root: Path) -> None:
    write_sample(root, "val", "a", PICTURE, LABELS + 300)


def _sizes(root: Path) -> None:
    write_sample(root, "val", "a", PICTURE, LABELS[:1])


def _grey(root: Path) -> None:
    picture: NDArray[np.uint8] = PICTURE[..., 0]
    write_sample(root, "val", "a", picture, LABELS)


def _ignore(root: Path) -> None:
    write_sample(root, "val", "a", PICTURE, LABELS, ignore=0)


def _lengths(root: Path) -> None:
    write_classes(root, CLASSES, (True,), 255, "")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_floats, "must be integers, got float32"),
        (_outside, "labels go from 299 to 302, allowed are 0 to 255"),
        (_sizes, "labels are 3 x 1 pixels, the image is 3 x 2"),
        (_grey, r"uint8 \[H, W, 3\]"),
        (_ignore, "ignore must be 255 or 65535"),
        (_lengths, "3 classes, but `trained` has 1"),
    ],
)
def test_what_does_not_fit_is_not_written(
    tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        write(tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("model.storage.files.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_sample(tmp_path, "val", "a", PICTURE, LABELS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_all_is_on_the_disk_before_the_class_list_makes_it_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wait a file at the end: none while files are written, which would take longer than writing them."""
    waited: list[str] = []

    def note(path: Path) -> None:
        assert not (tmp_path / "data" / "classes.json").exists() or path.name != "a.jpg"
        waited.append(path.name)

    monkeypatch.setattr(files, "sync", note)
    write_sample(tmp_path / "data", "train", "a", np.zeros((2, 3, 3), np.uint8), np.zeros((2, 3), np.int64))
    assert waited == []
    write_classes(tmp_path / "data", [ClassName(name="sky")], [True], 255, "")
    places = ["a.jpg", "a.png", "data", "images", "labels", "train", "train"]
    assert sorted(waited[:7]) == places
    assert [name.endswith(".partial.json") or name for name in waited[7:]] == [True, "data"]
