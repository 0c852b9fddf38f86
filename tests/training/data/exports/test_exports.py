"""`ebseg prepare` on the exports of annotation tools: every one gives the same label maps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ebseg
from tests.training.data.exports import drawn
from training.data.exports.convert import READERS, prepare_export
from training.data.exports.options import ExportOptions
from training.data.layout import SegmentationFolder, check
from training.data.pictures import read_picture
from training.data.present import CLASSES_FILE
from training.errors import DatasetError

MAKERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "labelme": ("labelme", drawn.labelme),
    "coco": ("coco", drawn.coco),
    "panoptic": ("coco", drawn.panoptic),
    "label-studio": ("label-studio", drawn.label_studio),
    "cvat": ("cvat", drawn.cvat),
    "masks": ("masks", drawn.masks),
    "colors": ("masks", lambda folder: drawn.masks(folder, colors=True)),
}


def options(made: Path, kind: str, **more: Any) -> ExportOptions:
    if kind == "masks":
        return ExportOptions(pictures=made.parent / "pictures", classes=made.parent / "labels.txt", **more)
    return ExportOptions(**more)


@pytest.mark.parametrize("maker", MAKERS)
def test_every_format_gives_the_same_labels(maker: str, tmp_path: Path) -> None:
    kind, make = MAKERS[maker]
    made = make(tmp_path)
    prepared = prepare_export(kind, made, tmp_path / "data", options(made, kind), jobs=1, shown=False)
    assert prepared.classes == prepared.trained == 2
    assert {name: count.pairs for name, count in prepared.splits.items()} == {"train": 1, "val": 1}
    found: dict[str, NDArray[np.int64]] = {}
    for split in ("train", "val"):
        folder = SegmentationFolder(tmp_path / "data", split)
        check(folder, progress=False)
        assert [item.name for item in folder.classes] == ["boat", "buoy"]
        found |= {sample.name: sample.labels for sample in folder}
    assert set(found) == set(drawn.NAMES)
    for labels in found.values():
        assert np.array_equal(labels, drawn.truth())


def test_what_has_no_area_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = drawn.labelme(tmp_path / "photos")
    line = ["prepare", "labelme", str(made), str(tmp_path / "data"), "--jobs", "1"]
    assert ebseg.main(line) == 0
    out = capsys.readouterr().out
    assert "labelme; without an area, and left out: 1 point" in out
    assert ebseg.main([*line, "--ignore", "buoy", "--val-share", "0", "--json"]) == 0  # all is made anew
    values = json.loads(capsys.readouterr().out)
    assert (values["classes"], list(values["splits"])) == (1, ["train"])
    labels = SegmentationFolder(tmp_path / "data", "train")[0].labels
    assert (labels[8:14, 10:16] == -1).all()
    assert not (tmp_path / "data" / "labels" / "val").exists()


def test_pictures_of_all_kinds_are_copied(tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / "photos")
    original = (made / "quay.jpg").read_bytes()
    Image.open(made / "bay.jpg").save(made / "bay.webp", lossless=True)
    (made / "bay.jpg").unlink()
    text = (made / "bay.json").read_text().replace("bay.jpg", "bay.webp")
    (made / "bay.json").write_text(text)
    prepare_export("labelme", made, tmp_path / "data", ExportOptions(val_share=0), jobs=1, shown=False)
    assert (tmp_path / "data" / "images" / "train" / "quay.jpg").read_bytes() == original
    written = (tmp_path / "data" / "images" / "train" / "bay.webp").read_bytes()
    assert written == (made / "bay.webp").read_bytes()


def test_linked_pictures_take_no_room(tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / "photos")
    words = ["prepare", "labelme", str(made), str(tmp_path / "data"), "--jobs", "1", "--link"]
    assert ebseg.main(words) == 0
    for split, name in (("train", "quay"), ("val", "bay")):
        places = [tmp_path / "data" / "images" / s / f"{name}.jpg" for s in (split, "train", "val")]
        assert any(place.exists() and place.samefile(made / f"{name}.jpg") for place in places)
    assert ebseg.main(words) == 0  # all is made anew, and the photographs stay
    assert (made / "quay.jpg").stat().st_size > 0


def test_a_picture_that_tools_show_upright(tmp_path: Path) -> None:
    """Its file lies on its side and says so; the labels were drawn on what the tool showed."""
    made = drawn.labelme(tmp_path / "photos")
    for name in drawn.NAMES:
        with Image.open(made / f"{name}.jpg") as image:
            lying = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        lying.save(made / f"{name}.jpg", exif=exif)
    prepare_export("labelme", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    sample = SegmentationFolder(tmp_path / "data", "train")[0]
    assert sample.picture.shape == (drawn.HEIGHT, drawn.WIDTH, 3)
    assert np.array_equal(sample.labels, drawn.truth())


def test_a_picture_may_lie_in_the_annotation(tmp_path: Path) -> None:
    import base64

    made = drawn.labelme(tmp_path / "photos")
    for name in drawn.NAMES:
        content = json.loads((made / f"{name}.json").read_text())
        content["imageData"] = base64.b64encode((made / f"{name}.jpg").read_bytes()).decode()
        (made / f"{name}.json").write_text(json.dumps(content))
        (made / f"{name}.jpg").unlink()
    prepared = prepare_export("labelme", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert sum(count.pairs for count in prepared.splits.values()) == 2


def broken(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def no_picture(made: Path) -> None:
    (made / "quay.jpg").unlink()


def other_size(made: Path) -> None:
    Image.new("RGB", (7, 9)).save(made / "quay.jpg")


@pytest.mark.parametrize(
    ("maker", "damage", "message"),
    [
        ("labelme", no_picture, "its image quay.jpg is not there; name its folder with --pictures"),
        ("labelme", other_size, "quay.jpg is 7 x 9 pixels, but was annotated at 40 x 30"),
        ("labelme", lambda made: broken(made / "quay.json", "shapes", "forms"), 'it has no list "shapes"'),
        (
            "labelme",
            lambda made: broken(made / "quay.json", "rectangle", "cube"),
            "the shape 'cube' is unknown",
        ),
        ("labelme", lambda made: broken(made / "quay.json", "{", "["), "cannot be read as JSON"),
        ("coco", lambda made: broken(made, '"images"', '"pictures"'), "is no COCO file"),
        ("coco", lambda made: broken(made, '"category_id": 7', '"category_id": 8'), "there is no category 8"),
        ("coco", lambda made: broken(made, '"image_id": 1', '"image_id": 5'), "of the image 5, which is not"),
        ("coco", lambda made: broken(made, '"size": [30', '"size": [29'), r"size \[29, 40\], the image"),
        ("label-studio", lambda made: made.write_text("{}"), "export as JSON, not JSON-MIN"),
        (
            "label-studio",
            lambda made: broken(made, '"rle": [0, 0, 18', '"rle": [0, 0, 19'),
            "brush stroke has",
        ),
        (
            "label-studio",
            lambda made: broken(made, '"polygonlabels": ["boat"]', '"polygonlabels": []'),
            "is damaged: IndexError",
        ),
        (
            "label-studio",
            lambda made: broken(made, '"/data/upload/1/1a2b3c4d-bay.jpg"', '["bay.jpg"]'),
            "names no image in its data",
        ),
        ("coco", lambda made: broken(made, '"height": 30', '"height": Infinity'), "OverflowError"),
        ("labelme", lambda made: broken(made / "quay.json", "30", "Infinity"), "damaged: OverflowError"),
        ("cvat", lambda made: broken(made, "Validation", "../val"), "bay is of the split '../val'"),
        ("cvat", lambda made: broken(made, "<annotations>", "<annotations"), "cannot be read as XML"),
        ("cvat", lambda made: broken(made, "0,36", "0,35"), "a mask of buoy does not fill its 6 x 6 pixels"),
        ("cvat", lambda made: broken(made, 'left="10"', 'left="36"'), "reaches beyond the image"),
        ("masks", lambda made: broken(made.parent / "labels.txt", "\nbuoy", ""), "holds the value 2, which"),
        (
            "colors",
            lambda made: broken(made.parent / "labels.txt", "buoy:222", "buoy:221"),
            "the colour 222,",
        ),
        (
            "colors",
            lambda made: broken(made.parent / "labels.txt", "buoy:222,", "buoy:"),
            "is no colour such",
        ),
    ],
)
def test_what_is_wrong_is_named(
    maker: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    kind, make = MAKERS[maker]
    made = make(tmp_path / "photos")
    damage(made)
    with pytest.raises(DatasetError, match=message):
        prepare_export(kind, made, tmp_path / "data", options(made, kind), jobs=1, shown=False)
    assert not (tmp_path / "data" / CLASSES_FILE).exists()


def test_a_hidden_folder_above_does_not_hide_what_lies_in_it(tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / ".mounted" / "photos")
    (made / ".trash").mkdir()
    (made / ".trash" / "old.json").write_text("{}")  # would be refused
    prepared = prepare_export("labelme", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert sum(count.pairs for count in prepared.splits.values()) == 2


@pytest.mark.parametrize(
    ("stem", "splits"),
    [
        ("instances_train2017", ["train"]),
        ("Validation", ["val"]),
        ("contest", ["train", "val"]),
        ("intervals", ["train", "val"]),
    ],
)
def test_a_file_name_tells_a_split_by_a_whole_word(stem: str, splits: list[str], tmp_path: Path) -> None:
    made = drawn.coco(tmp_path / "photos")
    renamed = made.rename(made.with_stem(stem))
    prepared = prepare_export("coco", renamed, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert list(prepared.splits) == splits


@pytest.mark.parametrize("name", ["bay #1", "bay?2", "50%25 bay", "//[bay"])
def test_a_picture_whose_name_looks_like_an_address(name: str, tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / "photos")
    (made / "bay.jpg").rename(made / f"{name.lstrip('/')}.jpg")
    broken(made / "bay.json", "bay.jpg", f"{name}.jpg")
    prepared = prepare_export("labelme", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert sum(count.pairs for count in prepared.splits.values()) == 2


def test_a_task_may_hold_other_texts_before_its_picture(tmp_path: Path) -> None:
    made = drawn.label_studio(tmp_path / "photos")
    broken(made, '"data": {', '"data": {"by": "Jo B. Doe", "number": 3, ')
    prepared = prepare_export("label-studio", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert sum(count.pairs for count in prepared.splits.values()) == 2


def test_a_picture_of_16_bits_is_read_as_the_service_reads_it(tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / "photos")
    grey = np.arange(drawn.HEIGHT * drawn.WIDTH, dtype=np.uint16).reshape(drawn.HEIGHT, drawn.WIDTH)
    Image.fromarray(grey).save(made / "bay.png")
    broken(made / "bay.json", "bay.jpg", "bay.png")
    prepare_export("labelme", made, tmp_path / "data", ExportOptions(val_share=0), jobs=1, shown=False)
    picture = read_picture(tmp_path / "data" / "images" / "train" / "bay.png")
    assert np.array_equal(picture[..., 1], np.round(grey / 257))


def test_options_of_the_other_kind_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["labelme", "--splits", "train"], "--splits is for public data sets, and labelme is none"),
        (["voc", "--val-share", "0.5"], "--val-share is for exports, and voc is none"),
        (["labelme", "--val-share", "1.5"], "--val-share must be at least 0 and less than 1, got 1.5"),
        (["masks"], "masks need --pictures DIR"),
        (["coco", "--pictures", "nowhere"], "--pictures nowhere is no folder"),
    ):
        assert ebseg.main(["prepare", words[0], str(tmp_path), str(tmp_path / "data"), *words[1:]]) == 2
        assert message in capsys.readouterr().err
    assert ebseg.main(["prepare", "coco", str(tmp_path / "none"), str(tmp_path / "data")]) == 2
    assert "is not there: give the export's file or folder" in capsys.readouterr().err


def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    made = drawn.labelme(tmp_path / "photos")
    prepare_export("labelme", made, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    other = drawn.coco(tmp_path / "other")
    with pytest.raises(DatasetError, match="is made from another archive"):
        prepare_export("coco", other, tmp_path / "data", ExportOptions(), jobs=1, shown=False)
    assert len(SegmentationFolder(tmp_path / "data", "train")) == 1
    assert set(READERS) | {"masks"} == {kind for kind, _ in MAKERS.values()}
