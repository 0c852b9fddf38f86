"""Each form of an answer, read by tools of others and compared pixel by pixel with the label map."""

import base64
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from shapely import geometry

from tests.service.fakes import fields, post, problem, running
from tests.service.segmentation.test_run_lengths import from_rle

PANOPTIC_PYTHON = Path(__file__).parents[3] / ".venv" / "moto" / "bin" / "python"
NAMES = ["sky", "tree", "road"]
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
NOISE[8:30, 10:50] = NOISE[8, 10]


def noise() -> bytes:
    """A large region among many small ones."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    return buffer.getvalue()


async def asked(document: dict[str, Any], **options: Any) -> dict[str, Any]:
    async with running() as (client, _):
        answer = await post(client, {"classes": NAMES, **document}, image=noise(), **options)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def labels_of(answer: dict[str, Any]) -> NDArray[np.uint16]:
    found: NDArray[np.uint16] = np.load(io.BytesIO(base64.b64decode(answer["npy"])))
    return found


def pixels(text: str) -> NDArray[Any]:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.array(image)


@pytest.mark.anyio
async def test_coco_instances_by_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = await asked({"outputs": ["npy", "coco"], "regions": {"max_count": 20_000}})
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(answer["coco"]))
    coco = COCO(str(file))
    capsys.readouterr()
    labels = labels_of(answer)
    assert coco.loadCats(coco.getCatIds()) == [
        {"id": at, "name": name, "supercategory": ""} for at, name in enumerate(NAMES, 1)
    ]
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["width"], image["height"]) == (60, 40)
    drawn = np.zeros_like(labels)
    for one in coco.loadAnns(coco.getAnnIds()):
        mask = from_rle(coco.annToRLE(one))
        assert not drawn[mask].any()
        assert mask.sum() == one["area"]
        y, x = np.nonzero(mask)
        assert one["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        drawn[mask] = one["category_id"]
    assert np.array_equal(drawn, labels)
    assert "regions_left_out" not in answer


@pytest.mark.anyio
async def test_panoptic_segments_by_panopticapi(tmp_path: Path) -> None:
    answer = await asked({"outputs": ["npy", "panoptic"], "regions": {"max_count": 20_000}})
    document = answer["panoptic"]["document"]
    document["annotations"][0]["file_name"] = "a.png"
    (tmp_path / "a.png").write_bytes(base64.b64decode(answer["panoptic"]["png"]))
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    # its own reader of ids, and its measure of a prediction against itself, which checks each segment
    script = """
import json, numpy as np, sys
from PIL import Image
from panopticapi.evaluation import pq_compute_single_core
from panopticapi.utils import rgb2id
ids = rgb2id(np.array(Image.open("a.png"), dtype=np.uint8))
np.save("ids.npy", ids)
document = json.load(open("panoptic.json"))
categories = {one["id"]: one for one in document["categories"]}
pairs = [(one, one) for one in document["annotations"]]
found = pq_compute_single_core(0, pairs, ".", ".", categories)
print(json.dumps(found.pq_average(categories, isthing=None)[0]["pq"]))
"""
    done = subprocess.run(
        [PANOPTIC_PYTHON, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == 1.0
    category = {one["id"]: one["category_id"] for one in document["annotations"][0]["segments_info"]}
    table = np.array([0] + [category[number] for number in range(1, len(category) + 1)])
    assert np.array_equal(table[np.load(tmp_path / "ids.npy")], labels_of(answer))


@pytest.mark.anyio
async def test_geojson_by_shapely() -> None:
    answer = await asked({"outputs": ["npy", "geojson"], "regions": {"max_count": 20_000}})
    labels, drawn = labels_of(answer), np.zeros((40, 60), np.uint16)
    centres = np.stack(np.meshgrid(np.arange(60) + 0.5, np.arange(40) + 0.5), -1).reshape(-1, 2)
    points = [geometry.Point(*centre) for centre in centres]
    from shapely.prepared import prep

    for feature in answer["geojson"]["features"]:
        shape = geometry.shape(feature["geometry"])
        assert shape.is_valid
        assert shape.area == feature["properties"]["area"]
        left, top, right, bottom = map(int, shape.bounds)
        within = prep(shape)
        for y in range(top, bottom):
            for x in range(left, right):
                if within.contains(points[y * 60 + x]):
                    drawn[y, x] = feature["properties"]["label"]
        assert feature["properties"]["name"] == NAMES[feature["properties"]["label"] - 1]
    assert np.array_equal(drawn, labels)


@pytest.mark.anyio
@pytest.mark.parametrize("shape", ["rle", "polygon", "none"])
async def test_regions(shape: str) -> None:
    answer = await asked({"outputs": ["npy", "regions", "rle"], "regions": {"shape": shape, "min_area": 5}})
    labels, regions = labels_of(answer), answer["regions"]
    assert [one["id"] for one in regions] == list(range(1, len(regions) + 1))
    assert min(one["area"] for one in regions) >= 5
    out = answer["regions_left_out"]
    assert sum(one["area"] for one in regions) + out["area"] == labels.size
    assert out["count"] > 100
    for one in regions:
        assert set(one) == {"id", "label", "name", "bbox", "area", "score"} | ({shape} - {"none"})
        assert one["score"] == round(one["score"], 4)
        if shape == "rle":
            mask = from_rle(one["rle"])
            assert (mask.sum(), set(labels[mask].tolist())) == (one["area"], {one["label"]})
        if shape == "polygon":
            rings = [one["polygon"]["exterior"], *one["polygon"]["holes"]]
            assert geometry.Polygon(rings[0], rings[1:]).area == one["area"]
    for entry in answer["classes"]:
        y, x = np.nonzero(labels == entry["label"])
        assert entry["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        assert entry["fraction"] == round(entry["area"] / labels.size, 6)
        assert entry["mean_confidence"] == round(entry["mean_confidence"], 4)


@pytest.mark.anyio
async def test_a_class_without_pixels_has_no_box() -> None:
    answer = await asked({"background": {"threshold": 1.0}})
    assert [one["bbox"] for one in answer["classes"]] == [None] * 3 or answer["other"]["area"] < 2400


@pytest.mark.anyio
async def test_grey_pictures_and_a_cutout() -> None:
    wanted = {"outputs": ["npy", "confidence", "soft_mask", "cutout", "scores"], "subject": "tree"}
    answer = await asked(wanted)
    labels, scores = labels_of(answer), np.load(io.BytesIO(base64.b64decode(answer["scores"])))
    green = NOISE[:, :, 1] / np.float32(255)
    assert np.array_equal(pixels(answer["confidence"]), np.rint(green * 255).astype(np.uint8))
    soft = pixels(answer["soft_mask"])
    assert np.array_equal(soft, np.rint(scores[1] / np.maximum(scores.sum(0), 1) * 255).astype(np.uint8))
    cut, mask = pixels(answer["cutout"]), labels == 2
    assert cut.shape == (40, 60, 4)
    assert np.array_equal(cut[..., 3], 255 * mask)
    assert np.array_equal(cut[mask][:, :3], NOISE[mask])
    assert not cut[~mask].any()


@pytest.mark.anyio
@pytest.mark.parametrize("output", ["confidence", "soft_mask", "cutout", "png"])
async def test_a_picture_alone(output: str) -> None:
    document = {"classes": ["tree"] if output != "png" else NAMES, "outputs": [output]}
    async with running() as (client, _):
        alone = await post(client, document, image=noise(), headers={"Accept": "image/png"})
        within = await post(client, document, image=noise())
    assert alone.headers["content-type"] == "image/png"
    assert alone.content == base64.b64decode(within.json()[output])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("palette", "expected"),
    [
        ("voc", ["#800000", "#008000", "#808000"]),
        (["#010203", "#aabbcc"], ["#010203", "#aabbcc"]),
        ("distinct", []),
    ],
)
async def test_palettes(palette: Any, expected: list[str]) -> None:
    answer = await asked({"outputs": ["png"], "palette": palette})
    plain = await asked({"outputs": ["png"]})
    colors = [entry["color"] for entry in answer["classes"]]
    assert colors[: len(expected)] == expected
    assert len(set(colors)) == 3
    with Image.open(io.BytesIO(base64.b64decode(answer["png"]))) as image:
        stored = (image.getpalette() or [])[3:12]
        assert stored == [int(color[at : at + 2], 16) for color in colors for at in (1, 3, 5)]
        assert np.array_equal(np.array(image), pixels(plain["png"]))
    assert (palette == "distinct") == (colors == [entry["color"] for entry in plain["classes"]])


@pytest.mark.anyio
async def test_a_class_keeps_its_own_colour_in_any_palette() -> None:
    classes = [{"name": "sky", "color": "#112233"}, "tree"]
    answer = await asked({"classes": classes, "outputs": ["png"], "palette": "voc"})
    assert [entry["color"] for entry in answer["classes"]] == ["#112233", "#008000"]


@pytest.mark.anyio
async def test_what_is_in_the_picture() -> None:
    document = {"outputs": ["npy", "rle", "png"], "background": None}
    answer = await asked({**document, "classes": None, "vocabulary": "auto"})
    whole = await asked({**document, "classes": None, "vocabulary": "ade20k-847"})
    areas = [entry["area"] for entry in answer["classes"]]
    assert areas == sorted(areas, reverse=True)
    assert min(areas) > 0
    by_name = {entry["name"]: entry for entry in whole["classes"] if entry["area"]}
    assert set(by_name) == {entry["name"] for entry in answer["classes"]}
    labels, full = labels_of(answer), labels_of(whole)
    for entry in answer["classes"]:
        same = by_name[entry["name"]]
        assert np.array_equal(labels == entry["label"], full == same["label"])
        assert np.array_equal(from_rle(entry["rle"]), labels == entry["label"])
        assert {**entry, "label": 0, "color": 0} == {**same, "label": 0, "color": 0}


@pytest.mark.anyio
async def test_nothing_is_in_the_picture() -> None:
    black = io.BytesIO()
    Image.new("RGB", (8, 6)).save(black, "PNG")
    async with running() as (client, _):
        answer = await post(
            client,
            {"vocabulary": "auto", "background": {"threshold": 0.9}, "outputs": ["rle", "png", "coco"]},
            image=black.getvalue(),
        )
    assert answer.json()["classes"] == []
    assert answer.json()["other"]["area"] == 48
    assert answer.json()["coco"]["annotations"] == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ({"regions": {}}, "request", "regions needs one of coco, geojson, panoptic, regions in outputs"),
        ({"subject": "sky"}, "request", "subject needs one of cutout, soft_mask in outputs"),
        ({"outputs": ["cutout"]}, "subject", "which class do soft_mask and cutout show"),
        ({"outputs": ["cutout"], "subject": "trees"}, "subject", "did you mean tree?"),
        ({"outputs": ["regions"], "regions": {"max_count": 20_001}}, "regions.max_count", "at most 20000"),
        ({"outputs": ["regions"], "regions": {"min_area": 0}}, "regions.min_area", "at least 1"),
        ({"outputs": ["regions"], "regions": {"least": 1}}, "regions.least", "unknown field"),
        ({"palette": "rainbow"}, "palette", "a list of colours such as #1f77b4"),
        ({"palette": ["red"]}, "palette", "a list of colours such as #1f77b4"),
        ({"palette": [7]}, "palette", "a list of colours such as #1f77b4"),
    ],
)
async def test_what_cannot_be(document: dict[str, Any], field: str, message: str) -> None:
    async with running() as (client, _):
        answer = await post(client, {"classes": NAMES, **document})
    found = fields(problem(answer, 422))
    assert list(found) == [field]
    assert message in found[field]


@pytest.mark.anyio
async def test_form_fields_know_them() -> None:
    async with running() as (client, _):
        data = {"classes": "sky,tree", "outputs": "cutout,png", "subject": "tree", "palette": "voc"}
        answer = await client.post("/v1/segment", files={"image": noise()}, data=data)
        listed = await client.post(
            "/v1/segment",
            files={"image": noise()},
            data={"classes": "sky,tree", "palette": "#010203, #040506"},
        )
    assert [entry["color"] for entry in answer.json()["classes"]] == ["#800000", "#008000"]
    assert "cutout" in answer.json()
    assert [entry["color"] for entry in listed.json()["classes"]] == ["#010203", "#040506"]


@pytest.mark.anyio
async def test_memory_is_reserved_for_regions() -> None:
    async with running(max_host_bytes=40 * 2400) as (client, _):
        plain = await post(client, {"classes": NAMES, "outputs": ["confidence"]}, image=noise())
        regions = await post(client, {"classes": NAMES, "outputs": ["regions"]}, image=noise())
    assert isinstance(plain, httpx.Response)
    assert plain.status_code == 200, plain.text
    assert problem(regions, 413)["type"].endswith("too-much-memory")
