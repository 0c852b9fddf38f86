"""How an answer is looked at: outlines, names, zoom, before and after, and what is cut out."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.reading import CLASSES, ask, canvas, found, label_map, scene, type_classes
from tests.service.fakes import encoded, picture

VILLAGE = CLASSES["village"]


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """A place of the picture, as shares, in the window."""
    box = page.locator("#view").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def transform(page: Page) -> str:
    text: str = page.locator("#layers").evaluate("(each) => each.style.transform")
    return text


def test_regions_are_filled_by_a_third_and_named_where_they_are(village: Page, url: str) -> None:
    labels = label_map(ask(url, scene(), {"classes": VILLAGE}))
    alpha = canvas(village, "mask")[:, :, 3]
    assert set(alpha[labels > 0]) == {89, 255}  # 35 % of 255, and the outlines
    names = village.locator(".region-name:not(.gone)")
    named = names.evaluate_all(
        "(all) => { const view = document.getElementById('view').getBoundingClientRect(); "
        "return all.map((each) => { const box = each.getBoundingClientRect(); return [each.textContent, "
        "(box.left + box.width / 2 - view.left) / view.width, "
        "(box.top + box.height / 2 - view.top) / view.height, "
        "box.left, box.top, box.right, box.bottom]; }); }"
    )
    assert {"house", "butterfly", "clouds", "sand", "hay"} <= {name for name, *_ in named}
    for name, x, y, *_ in named:
        assert labels[int(y * 384), int(x * 512)] == VILLAGE.index(name) + 1, name
    for index, (_, _, _, left, top, right, bottom) in enumerate(named):
        for _, _, _, *other in named[index + 1 :]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
    village.click("#legend button[data-label='1']")
    expect(village.locator(".region-name:not(.gone)", has_text="house")).to_have_count(0)
    village.click("#show-names")
    expect(village.locator("#names")).to_be_hidden()
    village.click("#show-names")
    expect(names.first).to_be_visible()


def test_pointing_draws_a_line_around_the_class(village: Page, url: str) -> None:
    labels = label_map(ask(url, scene(), {"classes": VILLAGE}))
    assert not canvas(village, "ring").any()
    village.mouse.move(*at(village, 0.5, 0.9))
    expect(village.locator("#reading")).to_contain_text("sand")
    ring = canvas(village, "ring")[:, :, 3] > 0
    sand = labels == VILLAGE.index("sand") + 1
    near = np.zeros_like(sand)  # two pixels up, down, left or right of it
    near[2:] |= sand[:-2]
    near[:-2] |= sand[2:]
    near[:, 2:] |= sand[:, :-2]
    near[:, :-2] |= sand[:, 2:]
    assert np.array_equal(ring, near & ~sand)
    village.mouse.move(2, 2)
    expect(village.locator("#reading")).to_be_hidden()
    assert not canvas(village, "ring").any()


def test_zoom_by_buttons_keys_and_wheel_keeps_what_is_read(village: Page) -> None:
    village.click("#zoom-in")
    assert "scale(1.5)" in transform(village)
    village.click("#zoom-out")
    assert transform(village) == ""
    village.mouse.move(*at(village, 0.5, 0.9))
    expect(village.locator("#reading")).to_contain_text("sand")
    village.keyboard.down("Control")
    village.mouse.wheel(0, -400)
    village.keyboard.up("Control")
    expect(village.locator("#view")).to_have_class("view zoomed")
    village.mouse.move(*at(village, 0.5, 0.89))  # what was under the pointer still is
    expect(village.locator("#reading")).to_contain_text("sand")
    before = transform(village)
    village.mouse.down()
    village.mouse.move(*at(village, 0.6, 0.5), steps=4)
    village.mouse.up()
    assert transform(village) != before
    assert village.locator("#legend [aria-pressed=false]").count() == 0  # a drag is no click
    village.locator("#mask").focus()
    village.keyboard.press("0")
    assert transform(village) == ""
    for _ in range(9):
        village.keyboard.press("+")
    assert "scale(8)" in transform(village)
    for _ in range(6):
        village.keyboard.press("Shift+ArrowLeft")
        cross, view = (village.locator(f"#{name}").bounding_box() for name in ("cross", "view"))
        assert cross is not None
        assert view is not None
        assert view["x"] - 12 <= cross["x"] <= view["x"] + view["width"]  # it is brought into sight
    village.click("[data-scene=room]")
    found(village, len(CLASSES["room"]))
    assert transform(village) == ""


def test_before_and_after_by_mouse_and_keyboard(village: Page) -> None:
    line = village.get_by_role("slider", name="Where the image ends")
    expect(line).to_be_hidden()
    village.click("#compare")
    box = village.locator("#view").bounding_box()
    assert box is not None

    def clipped() -> float:
        text = village.locator("#mask").evaluate("(each) => each.style.maskImage")
        match = re.search(r"([\d.]+)px\)$", text)
        assert match, text
        return float(match[1])

    assert clipped() == pytest.approx(box["width"] / 2, abs=1)
    village.mouse.move(*at(village, 0.5, 0.5))
    village.mouse.down()
    village.mouse.move(*at(village, 0.25, 0.5), steps=4)
    village.mouse.up()
    assert clipped() == pytest.approx(box["width"] / 4, abs=6)
    line.focus()
    village.keyboard.press("End")
    assert clipped() == pytest.approx(box["width"] - 20, abs=1)
    village.mouse.move(*at(village, 0.1, 0.9))
    expect(village.locator("#reading")).to_contain_text("sand")  # also where the mask is not drawn
    village.click("#compare")
    assert village.locator("#mask").evaluate("(each) => each.style.maskImage") == ""


def test_what_is_shown_is_cut_out(village: Page, url: str) -> None:
    village.click("text=Hide all")
    village.click("#legend button[data-label='1']")
    with village.expect_download() as coming:
        village.click("#get-cutout")
    assert coming.value.suggested_filename == "village-cutout.png"
    with Image.open(io.BytesIO(Path(coming.value.path()).read_bytes())) as image:
        pixels = np.asarray(image.convert("RGBA"))
    house = label_map(ask(url, scene(), {"classes": VILLAGE})) == 1
    assert np.array_equal(pixels[:, :, 3], np.where(house, 255, 0))
    assert np.array_equal(pixels[house], canvas(village, "photo")[house])


def test_a_large_picture_is_cut_out_whole(visit: OpenPage) -> None:
    page = visit()
    type_classes(page, "sky", "hay")
    large = encoded(picture(150, 2400), "JPEG")
    page.set_input_files("#file", {"name": "wide.jpg", "mimeType": "image/jpeg", "buffer": large})
    found(page, 2)
    with page.expect_download() as coming:
        page.click("#get-cutout")
    with Image.open(io.BytesIO(Path(coming.value.path()).read_bytes())) as image:
        assert image.size == (2400, 150)
    page.set_input_files(
        "#file",
        {"name": "scan.tif", "mimeType": "image/tiff", "buffer": encoded(picture(60, 90), "TIFF")},
    )
    found(page, 2)
    page.click("#get-cutout")
    expect(page.get_by_role("alert")).to_contain_text("The browser cannot show this image")
