"""What a page shows, and what the service says itself."""

import base64
import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect
from pycocotools import mask as coco

from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
SCENES: dict[str, Any] = json.loads((ROOT / "service/static/scenes.json").read_text(encoding="utf-8"))
CLASSES = {scene["name"]: scene["classes"] for scene in SCENES["scenes"]}


def choose_scene(page: Page, name: str = "village") -> None:
    """Clicks a scene, and waits for its mask."""
    page.click(f"[data-scene={name}]")
    found(page, len(CLASSES[name]))


def found(page: Page, asked: int) -> None:
    """Waits until an answer for so many classes is shown, and nothing runs."""
    expect(page.locator("#result-title")).to_have_text(re.compile(rf"Found \d+ of {asked}$"))
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")


def type_classes(page: Page, *names: str) -> None:
    """Types classes into the box, each with Enter."""
    page.focus("#class-input")
    for name in names:
        page.keyboard.type(name)
        page.keyboard.press("Enter")


def chips(page: Page) -> list[str]:
    """Names on the chips."""
    return page.locator(".chip-name").all_text_contents()


def slide(page: Page, name: str, value: float) -> None:
    """Moves a slider as a pointer does."""
    page.locator(f"#{name}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        str(value),
    )


def canvas(page: Page, name: str) -> NDArray[np.uint8]:
    """Pixels of a canvas, uint8 [H, W, 4]."""
    address: str = page.evaluate("(id) => document.getElementById(id).toDataURL()", name)
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGBA"))


def ask(url: str, picture: bytes, document: dict[str, Any]) -> dict[str, Any]:
    """The service's own answer."""
    response = httpx.post(
        f"{url}/v1/segment", files={"image": picture}, data={"request": json.dumps(document)}, timeout=WAIT
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def scene(name: str = "village") -> bytes:
    """A sample's bytes."""
    return (ROOT / "samples" / f"{name}.jpg").read_bytes()


def label_map(answer: dict[str, Any]) -> NDArray[np.int64]:
    """Labels [H, W] of an answer's run lengths, decoded by pycocotools."""
    labels = np.zeros((answer["size"]["height"], answer["size"]["width"]), np.int64)
    for entry in answer["classes"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools of NumPy
            labels[coco.decode(entry["rle"]).astype(bool)] = entry["label"]
    return labels


def painted(answer: dict[str, Any], hidden: frozenset[str] = frozenset()) -> NDArray[np.uint8]:
    """What the mask's canvas has to hold at full opacity, uint8 [H, W, 4]."""
    colors = np.zeros((len(answer["classes"]) + 1, 4), np.uint8)
    for entry in answer["classes"]:
        if entry["name"] not in hidden:
            rgb = bytes.fromhex(entry["color"][1:])
            colors[entry["label"]] = (*rgb, 255)
    return colors[label_map(answer)]


def legend(page: Page) -> list[tuple[str, str, str, str]]:
    """Rows of the legend: name, trained or new, share, confidence."""
    rows = page.locator("#legend button")
    read = []
    for row in rows.all():
        texts = row.locator("span:not(.swatch):not(.share)").all_text_contents()
        read.append((texts[0], texts[1], texts[2], texts[3]))
    return read


def expected_legend(answer: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows that an answer has to give: what was found, the largest first."""
    present = sorted((e for e in answer["classes"] if e["area"]), key=lambda e: -e["area"])
    return [
        (
            entry["name"],
            "trained" if entry["trained"] else "new",
            "<0.1%" if entry["fraction"] < 0.0005 else f"{round_half_up(1000 * entry['fraction']) / 10:.1f}%",
            f"{round_half_up(100 * entry['mean_confidence'])}% sure",
        )
        for entry in present
    ]


def shows_other(page: Page, answer: dict[str, Any]) -> None:
    """Waits until the legend's row of "other" is that of an answer."""
    share = f"{round_half_up(1000 * answer['other']['fraction']) / 10:.1f}%"
    expect(page.locator("#legend .other-row .figure")).to_have_text(share)


def round_half_up(value: float) -> int:
    """As JavaScript does it."""
    return int(np.floor(value + 0.5))
