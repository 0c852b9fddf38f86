"""`ebseg segment` with folders, contact sheets, and a running service."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.confidence.caution import untrained
from model.segmenter import Segmenter
from model.storage.checkpoint import load
from model.vocabulary.classes import Vocabulary
from service.commands.segment import files as segment_files
from tests.service.cli_calls import run
from tests.service.fakes import FakeEngine, encoded, live, picture
from tests.service.scripted_server import Answer, scripted

CLASSES = ("--classes", "sky, tree, road")
NAMES = ["sky", "tree", "road"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, of which one is broken and two have one stem, and what is none."""
    made = tmp_path / "pictures"
    (made / "deeper").mkdir(parents=True)
    (made / "deeper" / "z.png").write_bytes(encoded(picture()))
    (made / ".hidden.png").write_bytes(encoded(picture()))
    (made / "notes.txt").write_text("no image")
    (made / "a.PNG").write_bytes(encoded(picture(60, 80)))
    (made / "b.jpg").write_bytes(encoded(picture(60, 80), "JPEG", quality=95))
    (made / "b.png").write_bytes(encoded(picture(40, 30)))
    (made / "c.png").write_bytes(encoded(picture(300, 300))[:-500])
    return made


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def labels(path: Path) -> Any:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_folder_without_a_server(
    folder: Path, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, overlays, sheet = tmp_path / "new" / "masks", tmp_path / "overlays", tmp_path / "sheet.png"
    words = ("--out", out, "--overlay", overlays, "--sheet", sheet, "--checkpoint", tiny_checkpoint)
    assert run("segment", folder, *CLASSES, *words) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.jpg.png", "b.png.png"]
    assert sorted(path.name for path in overlays.iterdir()) == ["a.webp", "b.jpg.webp", "b.png.webp"]
    expected = Segmenter(load(tiny_checkpoint).ebseg).segment(picture(60, 80), Vocabulary.of(NAMES))
    assert (labels(out / "a.png") == expected.labels).all()
    with Image.open(overlays / "b.png.webp") as overlay:
        assert (overlay.format, overlay.size) == ("WEBP", (30, 40))
    with Image.open(sheet) as image:
        assert image.size[0] == 2 * (2 * 400 + 6) + 32 + 2 * 12
        assert image.size[1] > 300 + 533  # tiles of 80 x 60 in the first row, of 30 x 40 in the second
    printed = capsys.readouterr()
    assert "4 images, 1 failed" in printed.out
    (line,) = [line for line in printed.out.splitlines() if "a.PNG" in line]
    assert "80 x 60" in line
    assert "%" in line
    assert "failed" in printed.out
    assert f"ebseg: failed: {folder / 'c.png'}: the image" in printed.err
    assert untrained("ebseg-tiny").message in printed.err
    assert printed.err.endswith("ebseg: error: 1 of 4 images failed\n")


def test_folder_as_lines_of_json(
    folder: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.png").unlink()
    assert run("segment", folder, *CLASSES, "--json", "--checkpoint", tiny_checkpoint, "--parallel", 1) == 0
    lines = documents(capsys.readouterr().out)
    assert [Path(line["picture"]).name for line in lines] == ["a.PNG", "b.jpg", "b.png"]
    assert [line["size"]["width"] for line in lines] == [80, 80, 30]
    assert all(set(line["classes"][0]["rle"]) == {"size", "counts"} for line in lines)


def test_folder_with_a_service(
    folder: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--url", url, "--out", tmp_path / "masks", "--sheet", tmp_path / "sheet.webp", "--json")
    assert run("segment", folder, *CLASSES, *words, "--background", 0.5) == 1
    lines = documents(capsys.readouterr().out)
    assert [Path(line["picture"]).name for line in lines] == ["a.PNG", "b.jpg", "b.png", "c.png"]
    assert "cannot be decoded" in lines[3]["error"]
    assert lines[0]["caches"]["prediction"] == "miss"
    assert len({line["request_id"] for line in lines[:3]}) == 3
    pixels = picture(60, 80)
    expected = pixels[:, :, 0].astype(int) * 3 // 256 + 1
    expected[pixels[:, :, 1] / 255 < 0.5] = 0
    assert (labels(tmp_path / "masks" / "a.png") == expected).all()
    assert [item["area"] for item in lines[0]["classes"]] == np.bincount(expected.ravel())[1:].tolist()
    with Image.open(tmp_path / "sheet.webp") as image:
        assert image.format == "WEBP"


def test_single_picture_with_a_service(
    folder: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "overlay.png"
    words = ("--url", url, "--overlay", overlay, "--templates", "plain", "--model", "fake", "--version", 3)
    assert run("segment", folder / "a.PNG", *CLASSES, *words) == 0
    printed = capsys.readouterr()
    assert "80 x 60, fake/3" in printed.out
    assert all(name in printed.out for name in NAMES)
    assert printed.err == ""
    with Image.open(overlay) as image:
        assert (image.format, image.size) == ("PNG", (80, 60))
    assert run("segment", folder / "a.PNG", "--vocabulary", "voc-20", "--url", url, "--json") == 0
    (answer,) = documents(capsys.readouterr().out)
    assert len(answer["classes"]) == 20
    assert "picture" not in answer


def test_pictures_go_to_the_service_in_parallel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        file.write_bytes(encoded(picture(4, 2 + number)))
    with scripted(Answer(seconds=0.3)) as server:
        words = ("--url", server.url, "--parallel", 6, "--json")
        assert run("segment", *files, "--classes", "sky", *words) == 0
        assert 2 <= server.together <= 6
        assert len({one.port for one in server.heard}) < len(files)
    assert [Path(line["picture"]) for line in documents(capsys.readouterr().out)] == files


def test_sheet_holds_only_so_many(
    folder: Path,
    tmp_path: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(segment_files, "MOST_ON_SHEET", 2)
    assert run("segment", folder, *CLASSES, "--url", url, "--sheet", tmp_path / "s.png") == 1
    output = " ".join(capsys.readouterr().err.split())
    assert "s.png shows the first 2 of 3 images" in output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("A", "--classes", "sky, sky"), 2, r"classes.1: "),
        (("BROKEN", *CLASSES), 2, "cannot be decoded"),
        (("A", "--vocabulary", "nothing"), 2, "no vocabulary of this name"),
        (("FOLDER", "--vocabulary", "nothing"), 2, "no vocabulary of this name"),
        (("A", *CLASSES, "--version", "9"), 2, "[404]"),
    ],
)
def test_what_the_service_refuses(
    words: tuple[str, ...],
    code: int,
    message: str,
    folder: Path,
    url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"A": folder / "a.PNG", "BROKEN": folder / "c.png", "FOLDER": folder}
    assert run("segment", *(places.get(word, word) for word in words), "--url", url) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"ebseg: error: {url}: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_service_that_is_not_there_stops_the_whole_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted() as server:
        pass
    words = ("--url", server.url, "--timeout", "2")
    assert run("segment", folder, *CLASSES, *words) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_key_comes_from_the_environment_or_the_flag(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with live(api_keys="key " * 5) as (address, _):
        words = ("segment", folder / "a.PNG", *CLASSES, "--url", address)
        assert run(*words) == 2
        assert "this needs a key" in capsys.readouterr().err
        monkeypatch.setenv("EBSEG_API_KEY", ("key " * 5).strip())
        assert run(*words) == 0
        assert run(*words, "--api-key", "another key 123456") == 2
        output = capsys.readouterr().err
        assert "this key is unknown" in output
        assert output.endswith(". Give a key with --api-key, or in EBSEG_API_KEY\n")


def test_time_of_each_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = threading.Event()
    with live(FakeEngine(gate=gate)) as (address, _):
        try:
            words = ("--url", address, "--timeout", "0.2", "--json")
            assert run("segment", folder / "a.PNG", folder / "b.png", *CLASSES, *words) == 1
        finally:
            gate.set()
    printed = capsys.readouterr()
    assert [line.keys() for line in documents(printed.out)] == [{"picture", "error"}] * 2
    assert "2 of 2 images failed" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("EMPTY", *CLASSES), "holds no images; they end in .jpg"),
        (("FOLDER", *CLASSES, "--out", "A"), "a.PNG must be a folder"),
        (("A", *CLASSES, "--out", "A"), "a.PNG is one of the images and would be overwritten"),
        (("FOLDER", *CLASSES, "--out", "FOLDER"), "is one of the images and would be overwritten"),
        (("A", *CLASSES, "--out", "SAME", "--overlay", "SAME"), "same.png would be written more than once"),
        (("A", "A", *CLASSES, "--out", "NEW"), "a.PNG is named more than once"),
        (("A", *CLASSES, "--sheet", "sheet.gif"), "sheet.gif must end in .png"),
        (("A", *CLASSES, "--timeout", "3"), "--timeout needs --url"),
        (("A", *CLASSES, "--version", "3"), "--version needs --url"),
        (("A", *CLASSES, "--api-key", "k"), "--api-key needs --url"),
        (("A", *CLASSES, "--url", "URL", "--max-pixels", "9"), "--max-pixels does not go with --url"),
        (("A", *CLASSES, "--url", "URL", "--config", "f"), "--config does not go with --url"),
        (("A", *CLASSES, "--url", "URL"), "error: the address of a service is http://HOST:PORT"),
        (("A", *CLASSES, "--url", "http://[::1"), "error: the address of a service is http://HOST:PORT"),
        (("A", *CLASSES, "--url", "http://h", "--api-key", "schlüssel"), "error: the API key"),
        (("A", *CLASSES, "--device", "cpu,cpu"), "on one device without a service, got cpu,cpu"),
    ],
)
def test_wrong_usage(
    words: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    places: dict[str, Path] = {
        "A": folder / "a.PNG",
        "FOLDER": folder,
        "EMPTY": folder.parent / "empty",
        "NEW": folder.parent / "new",
        "SAME": folder.parent / "same.png",
    }
    places["EMPTY"].mkdir()
    (folder / "d.png").write_bytes(b"")  # whose mask would have its name
    assert run("segment", *(places.get(word, word) for word in words)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("ebseg: error: ")
    assert (printed.err.count("\n"), printed.out) == (1, "")
    assert {path: path.stat().st_size for path in before} == before
    assert not places["NEW"].exists()


def test_overlay_that_webp_cannot_hold(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.png").write_bytes(encoded(picture(1, 16_384)))
    (tmp_path / "short.png").write_bytes(encoded(picture()))
    assert run("segment", tmp_path, *CLASSES, "--url", url, "--overlay", tmp_path / "o") == 1
    assert "WebP takes at most 16383 pixels" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["short.webp"]
