"""`ebseg segment --coco` and `--save`: files that others read, here and with a service."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import ebseg
from tests.service.fakes import live, picture
from tests.service.segmentation.test_encode import from_rle


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for name, side in (("a", 60), ("b", 80)):
        Image.fromarray(picture(side, 90)).save(folder / f"{name}.png")
    return folder


def run(folder: Path, *more: str) -> int:
    return ebseg.main(["segment", str(folder / "photos"), "--classes", "sky, tree", *more])


@pytest.mark.parametrize("remote", [False, True])
def test_coco_of_many_pictures(tmp_path: Path, remote: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "photos")
    flags = ["--coco", str(tmp_path / "all.json"), "--out", str(tmp_path / "masks"), "--background", "none"]
    flags += ["--save", f"geojson={tmp_path / 'shapes'}", "--save", f"cutout={tmp_path / 'cut'}"]
    flags += ["--subject", "tree", "--palette", "voc"]
    if remote:
        with live() as (url, _):
            assert run(tmp_path, *flags, "--url", url) == 0
    else:
        assert run(tmp_path, *flags) == 0
    coco = COCO(str(tmp_path / "all.json"))
    capsys.readouterr()
    assert [one["file_name"] for one in coco.loadImgs(coco.getImgIds())] == ["a.png", "b.png"]
    names = {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())}
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(tmp_path / "masks" / image["file_name"]) as mask:
            labels = np.asarray(mask)
            assert (mask.getpalette() or [])[3:9] == [128, 0, 0, 0, 128, 0]
        drawn = np.zeros_like(labels)
        for one in coco.loadAnns(coco.getAnnIds(image["id"])):
            drawn[from_rle(coco.annToRLE(one))] = ["sky", "tree"].index(names[one["category_id"]]) + 1
        assert np.array_equal(drawn, labels)
        stem = Path(image["file_name"]).stem
        with Image.open(tmp_path / "cut" / f"{stem}.png") as cut:
            assert np.array_equal(np.asarray(cut)[..., 3] > 0, labels == 2)
        shapes = json.loads((tmp_path / "shapes" / f"{stem}.geojson").read_text())
        assert sum(one["properties"]["area"] for one in shapes["features"]) == labels.size


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--save", "heat=x.png"], "OUTPUT one of confidence, soft_mask, cutout, geojson"),
        (["--min-area", "4"], "--min-area needs --coco"),
        (["--subject", "tree"], "--subject needs --save"),
        (["--coco", "x.txt"], "must end in .json"),
        (["--save", "cutout=cut"], "which class do soft_mask and cutout show"),
    ],
)
def test_flags_that_would_be_ignored(
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    try:
        code = run(tmp_path, *flags)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert message in capsys.readouterr().err
