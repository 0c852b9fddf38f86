"""What can be taken along: files and code."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.reading import (
    CLASSES,
    ask,
    canvas,
    choose_scene,
    found,
    label_map,
    scene,
    shows_other,
    slide,
    type_classes,
)
from tests.service.fakes import encoded, picture
from tests.waiting import WAIT

VILLAGE = CLASSES["village"]


def download(page: Page, button: str) -> tuple[str, bytes]:
    with page.expect_download() as coming:
        page.click(f"#{button}")
    return coming.value.suggested_filename, Path(coming.value.path()).read_bytes()


def copied(page: Page, language: str) -> str:
    page.get_by_role("tab", name=language).click()
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    text: str = page.evaluate("navigator.clipboard.readText()")
    assert text == page.locator("#code-text").text_content()
    return text


def test_downloads_hold_what_is_shown(visit: OpenPage, url: str) -> None:
    page = visit()
    choose_scene(page)
    slide(page, "threshold", 0.4)
    shows_other(page, ask(url, scene(), {"classes": VILLAGE, "background": {"threshold": 0.4}}))
    found(page, len(VILLAGE))
    answer = ask(url, scene(), {"classes": VILLAGE, "background": {"threshold": 0.4}})
    labels = label_map(answer)

    name, data = download(page, "get-png")
    assert name == "village-mask.png"
    with Image.open(io.BytesIO(data)) as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), labels)

    name, data = download(page, "get-rle")
    assert name == "village-rle.json"
    kept = json.loads(data)
    assert np.array_equal(label_map(kept), labels)
    assert [entry["area"] for entry in kept["classes"]] == [entry["area"] for entry in answer["classes"]]

    slide(page, "opacity", 100)
    page.click("#legend button[data-label='1']")
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur()")
    name, data = download(page, "get-overlay")
    assert name == "village-overlay.png"
    with Image.open(io.BytesIO(data)) as overlay:
        pixels = np.asarray(overlay.convert("RGB"))
    photo = canvas(page, "photo")[:, :, :3]
    shown = (labels != 0) & (labels != 1)
    assert np.array_equal(pixels[~shown], photo[~shown])
    assert np.array_equal(pixels[shown], canvas(page, "mask")[:, :, :3][shown])


def test_copied_calls_of_a_scene_run_anywhere(visit: OpenPage, tmp_path: Path, url: str) -> None:
    page = visit()
    choose_scene(page)
    slide(page, "threshold", 0.4)
    shows_other(page, ask(url, scene(), {"classes": VILLAGE, "background": {"threshold": 0.4}}))
    found(page, len(VILLAGE))
    curl = copied(page, "curl")
    done = subprocess.run(
        ["sh", "-euc", curl], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=True
    )
    answer = json.loads(done.stdout)
    wanted = ask(url, scene(), {"classes": VILLAGE, "background": {"threshold": 0.4}})
    assert answer["classes"] == wanted["classes"]
    assert answer["other"] == wanted["other"]

    python = copied(page, "Python")
    (tmp_path / "call.py").write_text(python, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "call.py"], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=True
    )
    shares = {line[:24].strip(): float(line.rpartition(" ")[2][:-1]) for line in done.stdout.splitlines()}
    assert shares == {
        entry["name"]: pytest.approx(100 * entry["fraction"], abs=0.051) for entry in wanted["classes"]
    }


def test_copied_calls_of_an_own_picture_survive_any_name(visit: OpenPage, tmp_path: Path) -> None:
    name, classes = 'it\'s a; "b" $HOME.png', ['it\'s; "x" $(id) {}', "été ☃", "a\\b"]
    own = encoded(picture(30, 40))
    (tmp_path / name).write_bytes(own)
    page = visit()
    type_classes(page, *classes)
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": own})
    found(page, 3)
    for language, command in (("curl", ["sh", "-euc"]), ("Python", [sys.executable, "-c"])):
        text = copied(page, language)
        done = subprocess.run(
            [*command, text], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT, check=True
        )
        if language == "curl":
            assert [entry["name"] for entry in json.loads(done.stdout)["classes"]] == classes
        else:
            assert [line[:24].strip() for line in done.stdout.splitlines()] == classes
