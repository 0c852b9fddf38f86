"""`ebseg segment --tiling`: pictures above max_pixels by parts, without seams; georeferences are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from PIL import Image, ImageCms
from shapely.geometry import shape

import ebseg
from model.pictures.decode import decode
from model.pictures.windows import windows
from model.tiling import TiledAxis, Tiling
from service.local import large
from service.scheduling.host_memory import decoding_bytes
from tests.service.commands.large_scene import CELL, GEO, draw_large, mean_iou, seams, shrunk_labels
from training.storybook.classes import CLASSES

ALL = ["--classes", ",".join(CLASSES), "--background", "none"]
FEW = ["--classes", "sky, grass, house, water", "--background", "none"]


def segment(*arguments: object) -> int:
    return ebseg.main(["segment", *map(str, arguments)])


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_large_scene_has_no_seams_and_is_seen_better_than_shrunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = draw_large(tmp_path, 1100, 1900, scenes=4, seed=7)
    out = tmp_path / "labels.tif"
    code = segment(scene.picture, *ALL, "--tiling", "512,64", "--max-pixels", 10**6, "--out", out, "--json")
    assert code == 0
    with rasterio.open(out) as file:
        labels = file.read(1)
        assert (file.crs, file.transform) == (GEO["crs"], GEO["transform"])
        assert file.colormap(1)[1][:3] == (247, 108, 104)
    truth = scene.truth_map()
    axis = TiledAxis(1900, 1900, Tiling(size=512, overlap=64))
    assert mean_iou(labels, truth) > mean_iou(shrunk_labels(scene), truth) + 25
    assert seams(labels, truth, list(axis.starts), axis.size) < 1.2
    answer = json.loads(capsys.readouterr().out)
    counted = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1)[1:]
    assert [one["area"] for one in answer["classes"]] == counted.tolist()
    for one in answer["classes"]:
        rows, columns = np.nonzero(labels == one["label"])
        box = None
        if one["area"]:
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() - left + 1, rows.max() - top + 1]
        assert one["bbox"] == box
        assert "rle" not in one


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_by_parts_is_as_whole(tmp_path: Path, suffix: str) -> None:
    scene = draw_large(tmp_path, 300, 450, scenes=1, seed=3)
    if suffix == ".png":
        read_back = Image.fromarray(read(scene.picture))
        scene.picture.with_suffix(suffix).parent.mkdir(exist_ok=True)
        read_back.save(tmp_path / "large.png")
    picture = tmp_path / f"large{suffix}"
    flags = [picture, *FEW, "--tiling", "200,60"]
    assert segment(*flags, "--out", tmp_path / "whole.png") == 0
    assert segment(*flags, "--max-pixels", 100_000, "--out", tmp_path / "parts.png") == 0
    assert segment(*flags, "--max-pixels", 100_000, "--out", tmp_path / "parts.tif") == 0
    whole, parts = read(tmp_path / "whole.png"), read(tmp_path / "parts.png")
    assert len(np.unique(whole)) > 1
    assert np.array_equal(whole, parts)
    assert np.array_equal(whole, read(tmp_path / "parts.tif"))


def drawn(bands: int = 3) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(4).integers(0, 256, (90, 130, bands), np.uint8)
    return pixels[..., 0] if bands == 1 else pixels


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("bands", "options", "by_windows"),
    [
        (3, {"compression": "tiff_lzw"}, True),
        (3, {"compression": "jpeg"}, True),
        (3, {}, True),
        (1, {"compression": "tiff_adobe_deflate"}, True),
        (4, {}, False),
        (3, {"icc_profile": PROFILE}, False),
        (3, {"tiffinfo": {274: 6}}, False),
    ],
)
def test_windows_have_the_pixels_of_the_decoder(
    tmp_path: Path, bands: int, options: dict[str, Any], by_windows: bool
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(drawn(bands)).save(path, "TIFF", **options)
    whole = decode(path.read_bytes(), max_pixels=10**6)
    with windows(path, 10**6) as parts:
        assert (parts is not None) == by_windows
        if parts is not None:
            assert parts.size == (90, 130)
            part = (slice(7, 80), slice(33, 130))
            assert np.array_equal(parts.read(part), whole[part])


def test_shapes_in_degrees_lie_where_the_pixels_do(tmp_path: Path) -> None:
    scene = draw_large(tmp_path, *CELL, scenes=1, seed=3)
    out, shapes = tmp_path / "labels.png", tmp_path / "shapes.geojson"
    code = segment(scene.picture, *FEW, "--out", out, "--save", f"geojson={shapes}", "--world")
    assert code == 0
    labels = read(out)
    document = json.loads(shapes.read_text())
    areas = np.zeros(5)
    for feature in document["features"]:
        geometry = shape(feature["geometry"])
        assert geometry.exterior.is_ccw
        assert not any(hole.is_ccw for hole in geometry.interiors)
        west, south, east, north = geometry.bounds
        assert 10 < west < east < 11
        assert 47 < south < north < 48
        back = rasterio.warp.transform_geom("EPSG:4326", GEO["crs"], feature["geometry"])
        areas[feature["properties"]["label"]] += shape(back).area / 0.25  # square metres of a pixel
    wanted = np.bincount(labels.ravel(), minlength=5)
    assert np.abs(areas - wanted)[1:].max() < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tiling", "32"], "tiling"),
        (["--tiling", "512,512"], "overlap must be below size"),
        (["--tiling", "large"], "must be SIZE or SIZE,OVERLAP"),
        (["--tiling", "64,63"], "at most 20000 are taken"),
        (["--tiling", "512", "--save", "geojson=a.geojson"], "without geojson"),
        (["--tiling", "512", "--overlay", "a.png"], "without overlays"),
        (["--world"], "--world needs --save geojson"),
        (["--mask-format", "tif"], "--mask-format needs --out with a folder"),
        ([], "at most 200000 are taken"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((500, 600, 3), np.uint8)).save("a.tif")
    try:
        code = segment("a.tif", *FEW, *flags, "--max-pixels", 200_000)
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_picture_without_a_place_has_none_in_the_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plain.tif", "plain.png"):
        Image.fromarray(drawn()).save(tmp_path / name)
        target = tmp_path / "a.geojson"
        assert segment(tmp_path / name, *FEW, "--save", f"geojson={target}", "--world") == 2
        assert "georeference" in (said := capsys.readouterr().err) or "no GeoTIFF" in said
        assert not target.exists()


def test_georeferences_of_a_folder(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    scene = draw_large(photos, 100, 120, scenes=1, seed=3)
    scene.truth.unlink()
    Image.fromarray(drawn()).save(photos / "plain.png")
    assert segment(photos, *FEW, "--out", tmp_path / "masks", "--mask-format", "tif") == 0
    with rasterio.open(tmp_path / "masks" / "large.tif") as file:
        assert (file.crs, file.transform) == (GEO["crs"], GEO["transform"])
    assert read(tmp_path / "masks" / "plain.tif").shape == (90, 130)


@pytest.mark.parametrize("form", ["png", "tif"])
def test_a_large_picture_that_is_decoded_at_once_has_to_fit(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"large.{form}"
    Image.fromarray(np.zeros((150, 200, 4), np.uint8)).save(file)  # with alpha, a TIFF has no windows
    flags = [*FEW, "--tiling", 160, "--max-pixels", 20_000, "--json"]
    monkeypatch.setattr(large, "usable", lambda: decoding_bytes(150 * 200))
    assert segment(file, *flags) == 0
    monkeypatch.setattr(large, "usable", lambda: decoding_bytes(150 * 200) - 1)
    assert segment(file, *flags) in (1, 2)
    said = capsys.readouterr()
    assert "200 x 150 pixels of this format are decoded at once" in said.out + said.err


def test_a_large_picture_among_others_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((500, 600, 3), np.uint8)).save(photos / "large.png")
    Image.fromarray(drawn()).save(photos / "small.png")
    flags = [*FEW, "--tiling", 512, "--max-pixels", 200_000, "--overlay", tmp_path / "overlays", "--json"]
    assert segment(photos, *flags) == 1
    large, small = map(json.loads, capsys.readouterr().out.splitlines())
    assert "without overlays" in large["error"]
    assert small["size"] == {"width": 130, "height": 90}
