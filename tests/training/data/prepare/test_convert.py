"""Preparing as a whole: going on, starting anew, several processes, and every way in which it fails."""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from model.errors import ModelError
from tests.training.data.prepare import miniature
from training.commands import prepare as command
from training.data.layout import SegmentationFolder, check
from training.data.prepare.convert import ARCHIVES, SplitCount, prepare
from training.errors import DatasetError

NAMES = ("2007_000032", "2007_000033", "2007_000039")
ROWS: miniature.Rows = [[0, 1, 20], [255, 2, 19]]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return miniature.voc(tmp_path / "src", {"train": {NAMES[0]: ROWS}, "val": dict.fromkeys(NAMES[1:], ROWS)})


@pytest.fixture
def maps(src: Path) -> Path:
    return src / "VOCdevkit" / "VOC2012" / "SegmentationClass"


def files(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()
    }


def test_a_second_run_makes_what_is_missing(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    first = prepare("voc", src, dst, shown=False)
    assert first.splits == {"train": SplitCount(pairs=1, skipped=0), "val": SplitCount(pairs=2, skipped=0)}
    before = files(dst)
    (dst / "labels" / "val" / f"{NAMES[1]}.png").unlink()

    second = prepare("voc", src, dst, shown=False)

    assert second.splits == {"train": SplitCount(pairs=1, skipped=1), "val": SplitCount(pairs=2, skipped=1)}
    after = files(dst)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "classes.json",
        "differences.json",
        f"images/val/{NAMES[1]}.jpg",
        f"labels/val/{NAMES[1]}.png",
    }


def test_an_empty_file_of_a_machine_that_lost_its_power_is_made_anew(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    prepare("voc", src, dst, shown=False)
    label_map = dst / "labels" / "val" / f"{NAMES[1]}.png"
    whole = label_map.read_bytes()
    label_map.write_bytes(b"")
    assert prepare("voc", src, dst, shown=False).splits["val"] == SplitCount(pairs=2, skipped=1)
    assert label_map.read_bytes() == whole


def test_linked_pictures_are_the_archives_own_files(src: Path, tmp_path: Path) -> None:
    copied, linked = tmp_path / "copied", tmp_path / "linked"
    prepare("voc", src, copied, shown=False)
    for force in (False, True):  # a second time over its own links
        prepare("voc", src, linked, shown=False, link=True, force=force)
    for name in (path for path in files(copied) if path.startswith(("images", "labels"))):
        assert (linked / name).read_bytes() == (copied / name).read_bytes()
    original = src / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{NAMES[1]}.jpg"
    assert (linked / "images" / "val" / original.name).samefile(original)
    assert not (copied / "images" / "val" / original.name).samefile(original)
    shutil.rmtree(linked)
    assert original.stat().st_size > 0


def test_a_disk_that_cannot_link_is_told(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("training.data.writing.os.link", across)
    with pytest.raises(DatasetError, match="leave --link out: Invalid cross-device link"):
        prepare("voc", src, tmp_path / "dst", shown=False, link=True)
    assert not (tmp_path / "dst" / "classes.json").exists()


def test_force_makes_all_anew(src: Path, maps: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    prepare("voc", src, dst, shown=False)
    miniature.palette(maps / f"{NAMES[0]}.png", [[3, 3, 3]] * 2)
    prepare("voc", src, dst, shown=False)
    assert SegmentationFolder(dst, "train")[0].labels.max() == 19
    made = prepare("voc", src, dst, force=True, shown=False)
    assert SegmentationFolder(dst, "train")[0].labels.tolist() == [[2, 2, 2]] * 2
    assert [count.skipped for count in made.splits.values()] == [0, 0]


def test_splits_one_after_the_other(src: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    prepare("voc", src, dst, splits=("val",), shown=False)
    with pytest.raises(DatasetError, match="train is missing"):
        SegmentationFolder(dst, "train")
    prepare("voc", src, dst, splits=("train",), shown=False)
    assert (len(SegmentationFolder(dst, "train")), len(SegmentationFolder(dst, "val"))) == (1, 2)


def test_several_processes(tmp_path: Path) -> None:
    names = [f"ADE_val_{index:08}" for index in range(35)]
    rows: miniature.Rows = [[0, 1, 2]] * 2
    src = miniature.ade20k_benchmark(tmp_path / "src", {"validation": dict.fromkeys(names, rows)})
    wrong = src / "ADEChallengeData2016" / "annotations" / "validation" / f"{names[30]}.png"
    miniature.grey(wrong, [[0, 151, 200]] * 2)
    with pytest.raises(DatasetError, match=f"1 problem\n  {wrong} holds 151, 200"):
        prepare("ade20k-150", src, tmp_path / "dst", splits=("val",), jobs=2, shown=False)
    miniature.grey(wrong, rows)
    made = prepare("ade20k-150", src, tmp_path / "dst", splits=("val",), jobs=2, shown=False)
    assert made.splits["val"] == SplitCount(pairs=35, skipped=34)
    folder = SegmentationFolder(tmp_path / "dst", "val")
    check(folder, progress=False)
    assert folder.names == names


# --- what goes wrong with the files


def test_wrong_pairs_are_listed_and_nothing_half_is_left(src: Path, maps: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    prepare("voc", src, dst, shown=False)
    pictures = maps.parent / "JPEGImages"
    miniature.palette(maps / f"{NAMES[0]}.png", [[0, 21, 254]] * 2)
    miniature.picture(pictures / f"{NAMES[1]}.jpg", width=5)
    whole = (pictures / f"{NAMES[2]}.jpg").read_bytes()
    (pictures / f"{NAMES[2]}.jpg").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DatasetError) as caught:
        prepare("voc", src, dst, force=True, shown=False)

    lines = str(caught.value).split("\n")
    assert lines[0] == f"PASCAL VOC 2012 in {src}: 3 problems"
    assert f"{NAMES[0]}.png holds 21, 254, which is no value" in lines[1]
    assert f"{NAMES[1]}.jpg is 5 x 2 pixels, its labels in {maps / NAMES[1]}.png are 3 x 2" in lines[2]
    assert f"{NAMES[2]}.jpg cannot be read" in lines[3]
    with pytest.raises(DatasetError, match=r"classes\.json is missing"):
        SegmentationFolder(dst, "val")


def test_at_most_twenty_problems_are_listed(tmp_path: Path) -> None:
    labels: dict[str, miniature.Rows] = {f"{index:012}": [[200, 200, 200]] * 2 for index in range(23)}
    src = miniature.coco_stuff(tmp_path / "src", labels, "val2017")
    with pytest.raises(DatasetError) as caught:
        prepare("coco-stuff", src, tmp_path / "dst", splits=("val",), jobs=1, shown=False)
    lines = str(caught.value).split("\n")
    assert lines[0].endswith(": 23 problems")
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "  ... and 3 more"


def test_missing_partners_are_listed(tmp_path: Path) -> None:
    labels: dict[str, miniature.Rows] = {"000000000001": ROWS, "000000000002": ROWS}
    src = miniature.coco_stuff(tmp_path / "src", labels, "val2017")
    (src / "val2017" / "000000000001.jpg").unlink()
    (src / "stuffthingmaps" / "val2017" / "000000000002.png").unlink()
    with pytest.raises(DatasetError) as caught:
        prepare("coco-stuff", src, tmp_path / "dst", splits=("val",), shown=False)
    assert "split val: 2 problems" in str(caught.value)
    assert "val2017/000000000002.jpg has no label map" in str(caught.value)
    assert "val2017/000000000001.png has no image" in str(caught.value)
    assert not (tmp_path / "dst").exists()


def test_listed_files_that_are_missing(src: Path, maps: Path, tmp_path: Path) -> None:
    (maps / f"{NAMES[1]}.png").unlink()
    (maps.parent / "JPEGImages" / f"{NAMES[2]}.jpg").unlink()
    with pytest.raises(DatasetError) as caught:
        prepare("voc", src, tmp_path / "dst", shown=False)
    assert "split val: 2 problems" in str(caught.value)
    assert f"{maps / NAMES[1]}.png is missing" in str(caught.value)
    assert f"JPEGImages/{NAMES[2]}.jpg is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("coco-stuff", ("train2017", "unpack train2017.zip below")),
        ("voc", ("VOCdevkit/VOC2012/JPEGImages", "unpack VOCtrainval_11-May-2012.tar")),
        ("pascal-context-59", ("VOC2010/JPEGImages", "unpack VOCtrainval_03-May-2010.tar")),
        ("pascal-context-459", ("VOC2010/JPEGImages", "unpack VOCtrainval_03-May-2010.tar")),
        ("ade20k-150", ("ADEChallengeData2016/images/training", "unpack ADEChallengeData2016.zip")),
        ("ade20k-847", ("ADE20K_2021_17_01/images/ADE/training", "unpack ADE20K_2021_17_01.zip")),
    ],
)
def test_missing_folders_name_the_download(tmp_path: Path, name: str, messages: tuple[str, ...]) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(DatasetError) as caught:
        prepare(name, tmp_path / "src", tmp_path / "dst", shown=False)
    assert all(message in str(caught.value) for message in messages)
    with pytest.raises(DatasetError, match="is no folder"):
        prepare(name, tmp_path / "nowhere", tmp_path / "dst", shown=False)


def test_missing_parts_of_an_archive(src: Path, maps: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"SegmentationClassAug: unpack SegmentationClassAug\.zip"):
        prepare("voc", src, tmp_path / "dst", splits=("trainaug",), shown=False)
    lists = maps.parent / "ImageSets" / "Segmentation"
    with pytest.raises(DatasetError, match=r"trainval\.txt is missing: it is part of VOCtrainval"):
        prepare("voc", src, tmp_path / "dst", splits=("trainval",), shown=False)
    (lists / "val.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"val\.txt is empty"):
        prepare("voc", src, tmp_path / "dst", shown=False)
    context = miniature.context(tmp_path / "context", {"train": {}, "val": {NAMES[0]: [[1, 1, 1]] * 2}})
    shutil.rmtree(context / "trainval")
    with pytest.raises(DatasetError, match=r"trainval: unpack trainval\.tar\.gz of PASCAL Context below"):
        prepare("pascal-context-59", context, tmp_path / "dst", splits=("val",), shown=False)


def test_an_archive_without_pictures(tmp_path: Path) -> None:
    for folder in ("val2017", "stuffthingmaps/val2017"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match="split val has no images"):
        prepare("coco-stuff", tmp_path / "src", tmp_path / "dst", splits=("val",), shown=False)


# --- damaged annotation files of PASCAL Context


def context_error(src: Path, dst: Path, name: str = "pascal-context-59") -> str:
    with pytest.raises(DatasetError) as caught:
        prepare(name, src, dst, splits=("val",), shown=False)
    return str(caught.value)


def test_damaged_label_maps(tmp_path: Path) -> None:
    src = miniature.context(tmp_path / "src", {"val": dict.fromkeys(NAMES, [[1, 1, 1]] * 2)})
    (src / "trainval" / f"{NAMES[0]}.mat").write_bytes(b"MATLAB no more")
    savemat(src / "trainval" / f"{NAMES[1]}.mat", {"Other": np.ones((2, 3), np.uint16)})
    savemat(src / "trainval" / f"{NAMES[2]}.mat", {"LabelMap": np.full((2, 3), 0.5)})
    text = context_error(src, tmp_path / "dst", "pascal-context-459")
    assert "3 problems" in text
    assert f"{NAMES[0]}.mat has no LabelMap that can be read" in text
    assert f"{NAMES[1]}.mat has no LabelMap that can be read" in text
    assert f"{NAMES[2]}.mat: LabelMap must be a map of whole numbers" in text
    savemat(src / "trainval" / f"{NAMES[0]}.mat", {"LabelMap": np.full((2, 3), 460, np.uint16)})
    assert "holds 460, which is no value" in context_error(src, tmp_path / "dst", "pascal-context-459")


def test_damaged_masks(tmp_path: Path) -> None:
    src = miniature.context(tmp_path / "src", {"val": {NAMES[0]: [[1, 1, 1]] * 2}})
    path = miniature.detail(src, {"val": {NAMES[0]: [(2, [0, 5])]}})
    text = context_error(src, tmp_path / "dst")
    assert f"{path}, {NAMES[0]}.jpg: runs of 5 pixels do not fill a mask of 3 x 2" in text
    miniature.detail(src, {"val": {NAMES[0]: [(3, [0, 6])]}})
    assert f"{path} holds 3, which is no value" in context_error(src, tmp_path / "dst")
    path.write_text('{"images": []')
    assert "is no annotation file of PASCAL in Detail" in context_error(src, tmp_path / "dst")
    path.write_text('{"images": [{"image_id": 1, "phase": "val"}], "annos_segmentation": []}')
    assert "is no annotation file of PASCAL in Detail" in context_error(src, tmp_path / "dst")


# --- what goes wrong with the target


def test_one_folder_takes_one_archive(src: Path, tmp_path: Path) -> None:
    prepare("voc", src, tmp_path / "dst", shown=False)
    other = miniature.context(tmp_path / "other", {"val": {NAMES[1]: [[1, 1, 1]] * 2}})
    with pytest.raises(DatasetError, match="made from another archive"):
        prepare("pascal-context-59", other, tmp_path / "dst", splits=("val",), shown=False)
    assert SegmentationFolder(tmp_path / "dst", "val").title == "PASCAL VOC 2012"
    with pytest.raises(DatasetError, match="holds other files already"):
        prepare("voc", src, src, shown=False)


def test_a_full_disk_is_no_traceback(src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.data.writing.shutil.copyfile", full)
    with pytest.raises(DatasetError, match=r"dst cannot be written: \[Errno 28\] No space left"):
        prepare("voc", src, tmp_path / "dst", shown=False)
    assert not (tmp_path / "dst" / "classes.json").exists()
    assert [path.name for path in (tmp_path / "dst").rglob("*") if path.is_file()] == [".prepare.json"]


# --- the command line


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    parsed = parser.parse_args(["prepare", *arguments])
    status: int = parsed.run(parsed)
    return status


def test_command(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dst = tmp_path / "dst"
    assert run("voc", str(src), str(dst), "--splits", "val", "--jobs", "1") == 0
    output = capsys.readouterr()
    assert "classes  20, of which 20 count as trained; 255 is no class" in output.out
    assert "val      2 pairs\n" in output.out
    assert "preparing voc: 2 of 2" in output.err
    assert run("voc", str(src), str(dst), "--splits", "train, val") == 0
    assert "val      2 pairs, 2 of them from an earlier run" in capsys.readouterr().out


def test_command_as_json(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("voc", str(src), str(tmp_path / "dst"), "--json", "--force") == 0
    assert json.loads(capsys.readouterr().out) == {
        "title": "PASCAL VOC 2012",
        "root": str(tmp_path / "dst"),
        "classes": 20,
        "trained": 20,
        "ignore": 255,
        "source": "",
        "splits": {"train": {"pairs": 1, "skipped": 0}, "val": {"pairs": 2, "skipped": 0}},
    }


def test_command_says_where_labels_are_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src = miniature.context(tmp_path / "src", {"val": {NAMES[0]: [[1, 1, 1]] * 2}})
    assert run("pascal-context-59", str(src), str(tmp_path / "dst"), "--splits", "val") == 0
    assert f"labels   maps of {src / 'trainval'}, lists of " in capsys.readouterr().out


def test_command_knows_all_archives() -> None:
    assert tuple(ARCHIVES) == command.ARCHIVES


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_wrong_number_of_jobs(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("voc", "src", "dst", f"--jobs={count}")
    assert "must be a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ("test", "has no split 'test'; known are train, val, trainval, trainaug"),
        ("val,val", "name each split once"),
        ("", "has no split ''"),
    ],
)
def test_wrong_splits(src: Path, tmp_path: Path, splits: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        run("voc", str(src), str(tmp_path / "dst"), "--splits", splits)


def test_unknown_archive(src: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no archive 'cityscapes'; known are coco-stuff, voc"):
        prepare("cityscapes", src, tmp_path / "dst", shown=False)
