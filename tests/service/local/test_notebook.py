"""`ebseg.load`: the service's masks without a server, from any form of picture, and errors in words."""

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import ebseg
from model.errors import CheckpointError, VocabularyError
from model.storage.packaged import packaged_checkpoint
from service.app import create_app
from service.errors import BadPictureError, TooManyPixelsError, UnsupportedMediaError, UsageError
from service.local.notebook import NotebookModel, find_checkpoint
from service.options import MAX_PIXELS
from service.server import build_server
from service.settings import SettingsError
from tests.service.cli_calls import run
from tests.service.fakes import encoded, in_thread, settings
from tests.waiting import WAIT, wait_until

ROOT = Path(__file__).parents[3]
VILLAGE = ROOT / "samples" / "village.jpg"
NAMES = ["house", "umbrella", "clouds"]
SMALL = np.random.default_rng(5).integers(0, 255, (9, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def model() -> NotebookModel:
    return ebseg.load("ebseg-tiny")


class Counting:
    """The calls of an engine's predict and embed."""

    def __init__(self, model: NotebookModel, monkeypatch: pytest.MonkeyPatch):
        self.calls: list[str] = []
        engine: Any = model._model.engine
        for name in ("predict", "embed"):
            monkeypatch.setattr(engine, name, self._counted(name, getattr(engine, name)))

    def _counted(self, name: str, real: Any) -> Any:
        def call(*args: Any) -> Any:
            self.calls.append(name)
            return real(*args)

        return call


def test_labels_are_those_of_the_command_and_of_the_service(model: NotebookModel, tmp_path: Path) -> None:
    found = model.segment(VILLAGE, NAMES, background=0.3, templates="plain", size=300)
    whole = model.segment(str(VILLAGE), NAMES, background=None)
    out = tmp_path / "mask.png"
    assert run("segment", VILLAGE, "--classes", ",".join(NAMES), "--background", "none", "--out", out) == 0
    with Image.open(out) as image:
        assert (np.asarray(image) == whole.label_map).all()
    own = settings(checkpoint=packaged_checkpoint())
    document = {
        "classes": NAMES,
        "background": {"threshold": 0.3},
        "templates": "plain",
        "output_size": {"long_side": 300},
    }
    with in_thread(build_server(create_app(own), own)) as url, httpx.Client(base_url=url) as client:
        wait_until(lambda: client.get("/readyz").status_code != 503, pause=0.05)
        npy, answer = (
            client.post(
                "/v1/segment",
                files={"image": VILLAGE.read_bytes()},
                data={"request": json.dumps(document)},
                headers={"Accept": form},
                timeout=WAIT,
            )
            for form in ("application/x-npy", "application/json")
        )
    assert (np.load(io.BytesIO(npy.content)) == found.label_map).all()
    assert found.label_map.shape == (225, 300)
    body = answer.json()
    assert found.other is not None
    assert (found.other.area, found.other.fraction) == (body["other"]["area"], body["other"]["fraction"])
    for one, served in zip(found.classes, body["classes"], strict=True):
        assert (one.name, one.label, one.color) == (served["name"], served["label"], served["color"])
        assert (one.area, one.fraction, one.trained) == (
            served["area"],
            served["fraction"],
            served["trained"],
        )
        assert one.confidence == served["mean_confidence"]


def test_any_form_of_picture(model: NotebookModel, tmp_path: Path) -> None:
    data = encoded(SMALL)
    path = tmp_path / "small.png"
    path.write_bytes(data)
    expected = model.segment(data, NAMES).label_map
    with Image.open(path) as opened, path.open("rb") as file:
        forms: list[Any] = [path, str(path), bytearray(data), io.BytesIO(data), file, opened, SMALL]
        forms += [SMALL[:, ::-1][:, ::-1], np.dstack([SMALL, np.full(SMALL.shape[:2], 255, np.uint8)])]
        for form in forms:
            assert (model.segment(form, NAMES).label_map == expected).all(), type(form)
        assert opened.size == (96, 72)  # as it was
    grey = SMALL[:, :, 0]
    assert (model.segment(grey, NAMES).label_map == model.segment(encoded(grey), NAMES).label_map).all()


def test_pictures_are_turned_upright(model: NotebookModel) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encoded(SMALL, "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        by_pillow = model.segment(opened, NAMES)
    by_bytes = model.segment(data, NAMES)
    assert by_bytes.label_map.shape == by_pillow.label_map.shape == (96, 72)
    assert (by_bytes.label_map == by_pillow.label_map).all()
    assert by_pillow.overlay.size == (72, 96)


def test_work_is_kept(model: NotebookModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.segment(SMALL, ["roof"])
    counting = Counting(model, monkeypatch)
    model.segment(SMALL, ["roof", "door"])  # other classes, same picture
    model.segment(SMALL.copy(), ["roof"])  # both known
    assert counting.calls == ["embed"]
    changed = SMALL.copy()
    changed[0, 0] ^= 255
    first = model.segment(changed, ["roof", "door"])
    model.segment(changed.reshape(48, 144, 3), ["roof"])  # the same bytes in another shape
    assert counting.calls == ["embed", "predict", "predict"]
    assert first.label_map.shape == (72, 96)


def test_result(model: NotebookModel, tmp_path: Path) -> None:
    house = {"name": "house", "synonyms": ["home"], "color": "#aa0000", "trained": True}
    entries: list[Any] = ["clouds", house]
    found = model.segment(VILLAGE, [*entries, "zebra"], background=0.2)
    labels = found.label_map
    assert labels.dtype == np.uint16
    assert found.classes[1].color == "#aa0000"
    assert found.classes[1].trained
    assert list(found.masks) == ["clouds", "house", "zebra"]
    assert (found.masks["house"] == (labels == 2)).all()
    assert (found.masks["house"] == found.classes[1].mask()).all()
    assert [one.area for one in found.classes] == np.bincount(labels.ravel(), minlength=4)[1:].tolist()
    with pytest.raises(KeyError):
        _ = found.masks["boat"]
    text = repr(found)
    assert text.startswith("<SegmentedPicture 512 x 384, ebseg-tiny/1>\n")
    assert all(name in text for name in ("clouds", "house", "zebra", "other", "trained"))
    with Image.open(io.BytesIO(found._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert shown.size[0] == found.sheet.size[0] > 800
    found.save(tmp_path / "mask.png")
    found.save(tmp_path / "mask.npy")
    found.save(tmp_path / "overlay.JPG", "overlay")
    found.save(tmp_path / "sheet.webp", "sheet")
    with Image.open(tmp_path / "mask.png") as image:
        assert (np.asarray(image) == labels).all()
    assert (np.load(tmp_path / "mask.npy") == labels).all()
    with Image.open(tmp_path / "overlay.JPG") as image:
        assert (image.format, image.size) == ("JPEG", found.overlay.size)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mask.npy",
        "mask.png",
        "overlay.JPG",
        "sheet.webp",
    ]


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("x.gif", "labels", ".png, .npy"),
        ("x.npy", "overlay", ".png, .jpg"),
        ("x.png", "masks", '"labels", "overlay" and "sheet"'),
        ("lost/x.png", "labels", "cannot be written"),
    ],
)
def test_what_cannot_be_saved(model: NotebookModel, tmp_path: Path, path: str, kind: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        model.segment(SMALL, NAMES).save(tmp_path / path, kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("picture", "error", "words"),
    [
        ("lost.jpg", UsageError, "lost.jpg cannot be read"),
        (3, UsageError, "a path, bytes, .* got int"),
        (io.StringIO("text"), UsageError, "binary mode.* got str"),
        (b"", BadPictureError, "empty"),
        (b"text", UnsupportedMediaError, "JPEG, PNG"),
        (encoded(SMALL)[:300], BadPictureError, "broken"),
        (np.zeros((3, 4)), UsageError, r"float64 \[3, 4\]"),
        (np.zeros((3, 4, 2), np.uint8), UsageError, r"uint8 \[3, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), UsageError, r"\[0, 4, 3\]"),
        (np.broadcast_to(np.uint8(0), (1, MAX_PIXELS + 1)), TooManyPixelsError, "at most"),
    ],
)
def test_pictures_that_cannot_be_used(
    model: NotebookModel, picture: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        model.segment(picture, NAMES)


def test_a_closed_pillow_image(model: NotebookModel, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(SMALL))
    closed = Image.open(tmp_path / "x.png")
    closed.close()
    with pytest.raises(BadPictureError, match="closed"):
        model.segment(closed, NAMES)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classes": "sky"}, UsageError, r"no built-in class list 'sky'.*ade20k-150.*\['sky'\]"),
        ({"classes": []}, UsageError, "at least one"),
        ({"classes": 3}, UsageError, "a list of names"),
        ({"classes": [3]}, UsageError, "classes.0"),
        ({"classes": [{"nam": "sky"}]}, UsageError, "unknown field"),
        ({"classes": ["sky", "Sky"]}, VocabularyError, "given twice"),
        ({"templates": "latin"}, UsageError, "templates"),
        ({"background": 2}, UsageError, "background"),
        ({"background": float("nan")}, UsageError, "background"),
        ({"size": 0}, UsageError, "output_size"),
        ({"tiling": 10}, UsageError, r"tiling\.size"),
        ({"tiling": "large"}, UsageError, r"tiling\.size"),
        ({"tiling": (100, 100)}, UsageError, "tiling: overlap must be below size"),
        ({"tiling": (1, 2, 3)}, UsageError, r"tiling: .*got \(1, 2, 3\)"),
    ],
)
def test_arguments_that_cannot_be_used(
    model: NotebookModel, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    classes = arguments.pop("classes", NAMES)
    with pytest.raises(error, match=words):
        model.segment(SMALL, classes, **arguments)


def test_built_in_list(model: NotebookModel) -> None:
    found = model.segment(SMALL, "voc-20")
    assert len(found.classes) == 20


def test_threads_get_their_own_results(model: NotebookModel) -> None:
    pictures = [np.roll(SMALL, 8 * shift, axis=1) for shift in range(4)]
    expected = [model.segment(picture, NAMES).label_map for picture in pictures]
    differ = []

    def work(index: int) -> None:
        differ.append((model.segment(pictures[index], NAMES).label_map != expected[index]).any())

    threads = [threading.Thread(target=work, args=(index % 4,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differ == [False] * 12


def test_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("tiny") == find_checkpoint("ebseg-tiny") == packaged_checkpoint()
    with pytest.raises(CheckpointError, match="`ebseg pull base` fetches it into registry/ebseg-base/1"):
        find_checkpoint("base")
    with pytest.raises(CheckpointError, match=r"no folder nothing.*tiny, base, large"):
        find_checkpoint("nothing")
    for version in ("1", "2", "10", "x"):
        folder = tmp_path / "registry" / "ebseg-base" / version
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    assert find_checkpoint("base") == find_checkpoint("ebseg-base") == Path("registry/ebseg-base/1")
    assert find_checkpoint("registry/ebseg-base") == Path("registry/ebseg-base/10")
    assert find_checkpoint("./registry/ebseg-base/2") == Path("registry/ebseg-base/2")
    with pytest.raises(CheckpointError, match=r"neither a manifest\.json nor versions"):
        find_checkpoint("./registry")
    for wrong in ("./lost", "", ".", "\0"):
        with pytest.raises(CheckpointError):
            find_checkpoint(wrong)
    for given in ("base", Path("registry/ebseg-base")):
        with pytest.raises(CheckpointError, match="manifest"):
            ebseg.load(given)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "tpu"}, '"auto", "cpu", "cuda"'),
        ({"device": "cuda:99"}, "cuda:99: there is none"),
        ({"dtype": "int8"}, "float32, bfloat16 or float16"),
    ],
)
def test_devices_and_types_that_are_not_there(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ebseg.load("ebseg-tiny", **arguments)


def test_importing_ebseg_loads_nothing_heavy() -> None:
    code = """
import sys
import ebseg
assert {"load", "main"} <= set(ebseg.__all__) and callable(ebseg.load)
print(*{"torch", "numpy", "PIL", "pydantic", "service", "model", "training"} & set(sys.modules))
sys.modules["pydantic"] = None  # as if it were not installed
try:
    ebseg.load("ebseg-tiny")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["", "this needs the package pydantic: pip install 'ebseg[service]'"]
