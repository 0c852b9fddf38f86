"""`ebseg segment --coco` and `--save`: files that others read, here and with a service."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import ebseg
from tests.service.fakes import live, picture
from tests.service.segmentation.test_forms import PANOPTIC_PYTHON
from tests.service.segmentation.test_run_lengths import from_rle


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
        (["--save", "heat=x.png"], "OUTPUT one of confidence, soft_mask, cutout, geojson, regions"),
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


PQ = """
import json, numpy as np, sys
from PIL import Image
from panopticapi.evaluation import pq_compute_single_core
document = json.load(open(sys.argv[1]))
categories = {one["id"]: one for one in document["categories"]}
pairs = [(one, one) for one in document["annotations"]]
found = pq_compute_single_core(0, pairs, ".", ".", categories)
print(json.dumps([len(pairs), found.pq_average(categories, isthing=None)[0]["pq"]]))
"""


@pytest.mark.parametrize("many", [True, False])
def test_every_output_is_saved(tmp_path: Path, many: bool) -> None:
    photos = pictures(tmp_path / "photos")
    target = photos if many else photos / "a.png"
    names = {"npy": ".npy", "scores": ".npy", "regions": ".json", "panoptic": ".png"}
    paths = {name: tmp_path / (name if many else f"{name}{ending}") for name, ending in names.items()}
    flags = [text for name, path in paths.items() for text in ("--save", f"{name}={path}")]
    classes = ["--classes", "sky, tree", "--background", "none", "--min-area", "2"]
    assert ebseg.main(["segment", str(target), *classes, *flags]) == 0

    def saved(name: str) -> Path:
        return paths[name] / f"a{names[name]}" if many else paths[name]

    labels = np.load(saved("npy"))
    assert np.array_equal(np.load(saved("scores")).argmax(0) + 1, labels)
    regions = json.loads(saved("regions").read_text())
    assert {one["name"] for one in regions} <= {"sky", "tree"}
    document = paths["panoptic"] / "panoptic.json" if many else tmp_path / "panoptic.json"
    done = subprocess.run(
        [PANOPTIC_PYTHON, "-c", PQ, document.name],
        cwd=document.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2 if many else 1, 1.0]
    first = json.loads(document.read_text())["annotations"][0]
    assert {one["area"] for one in first["segments_info"]} == {one["area"] for one in regions}


def test_nothing_that_looks_like_a_picture_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = pictures(tmp_path / "photos")
    content = (photos / "a.png").read_bytes()
    (photos / "c.HEIC").write_bytes(content)
    (photos / "without an ending").write_bytes(content)
    (photos / "d.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40))
    (photos / "e").write_bytes(b"\0\0\0\x0cjP  " + bytes(40))
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_bytes(content)
    assert run(tmp_path, "--json") == 1
    out = capsys.readouterr()
    lines = [json.loads(line) for line in out.out.splitlines()]
    errors = {Path(line["picture"]).name: line.get("error") for line in lines}
    assert errors.keys() == {"a.png", "b.png", "c.HEIC", "without an ending", "d.jp2", "e"}
    assert {name for name, error in errors.items() if error} == {"d.jp2", "e"}
    assert "a JPEG 2000 image" in errors["d.jp2"]
    assert "a JPEG 2000 image" in errors["e"]
    assert "2 of 6 images failed" in out.err
