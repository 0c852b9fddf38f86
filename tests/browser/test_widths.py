"""From a small phone to a desk: nothing scrolls sideways, and a phone shows cause and effect at once."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, WAIT_MS, Opened, OpenPage
from tests.browser.reading import CLASSES, choose_scene, found
from tests.browser.test_accessibility import violations
from tests.service.fakes import live

LONGEST = ("ade20k-847", 847)
WIDTHS = [320, 390, 600, 768, 1280]


@pytest.fixture(scope="module")
def fake() -> Iterator[str]:
    """A server that answers lists of any length at once: its address."""
    with live() as (url, _):
        yield url


def sideways(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_longest_list_scrolls_nothing_sideways(
    opened: Opened, fake: str, width: int, scheme: str
) -> None:
    page = opened(fake, size={"width": width, "height": 800}, color_scheme=scheme)
    page.wait_for_selector("#model:enabled")
    assert sideways(page) <= 0
    choose_scene(page)
    name, size = LONGEST
    page.select_option("#list", name)
    found(page, size)
    assert sideways(page) <= 0
    page.click("#save-open")
    page.get_by_role("button", name="and 829 more").click()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    expect(page.locator(".chip")).to_have_count(size)
    assert sideways(page) <= 0
    page.click("#clear")
    page.locator("#class-input").fill("x" * 200)
    page.keyboard.press("Enter")
    found(page, 1)
    assert sideways(page) <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_picture_words_and_what_they_found(visit: OpenPage, scheme: str) -> None:
    page = visit(size=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    for name in ("Use the camera", "Choose an image"):
        expect(page.get_by_role("button", name=name)).to_be_visible()
    with page.expect_file_chooser():
        page.get_by_role("button", name="Use the camera").tap()
    expect(page.locator("#camera")).to_have_attribute("capture", "environment")
    choose_scene(page)
    boxes = {
        name: page.locator(f"#{name}").bounding_box() for name in ("stage", "chips", "class-input", "run")
    }
    tops = []
    for name, box in boxes.items():
        assert box is not None, name
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= PHONE["height"], name
        tops.append(box["y"])
    assert tops == sorted(tops)  # the picture, the chips under it, and so on
    page.locator("#result").scroll_into_view_if_needed()
    page.locator("#legend button").last.scroll_into_view_if_needed()
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["y"] == 0  # it stays in sight
    small = page.evaluate(
        "[...document.querySelectorAll('button, select')].filter((each) => each.offsetParent && "
        "each.offsetHeight < 24).map((each) => each.id || each.textContent)"
    )
    assert small == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(245, 246, 248)" if scheme == "light" else "rgb(14, 17, 22)")
    assert violations(page) == []


def test_no_camera_is_offered_where_there_is_a_mouse(visit: OpenPage) -> None:
    page = visit()
    expect(page.get_by_role("button", name="Choose an image")).to_be_visible()
    expect(page.get_by_role("button", name="Use the camera")).to_be_hidden()


def test_two_fingers_zoom_and_one_pans(visit: OpenPage) -> None:
    page = visit(size=PHONE, has_touch=True, is_mobile=True)
    choose_scene(page)
    asked = page.locator("#result-title").text_content()
    touch = page.context.new_cdp_session(page)
    box = page.locator("#view").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def fingers(kind: str, *apart: float) -> None:
        points = [{"x": x + each, "y": y, "id": number} for number, each in enumerate(apart)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", -30, 30)
    for apart in (40, 60, 80, 90):
        fingers("touchMove", -apart, apart)
    fingers("touchEnd")
    expect(page.locator("#view")).to_have_class("view zoomed", timeout=WAIT_MS)
    before = page.locator("#layers").evaluate("(each) => each.style.transform")
    fingers("touchStart", 0)
    for at in (20, 40, 60):
        fingers("touchMove", at)
    fingers("touchEnd")
    assert page.locator("#layers").evaluate("(each) => each.style.transform") != before
    assert page.locator("#legend [aria-pressed=false]").count() == 0  # a drag is no tap
    assert page.locator("#result-title").text_content() == asked
    assert len(CLASSES["village"]) == page.locator(".chip").count()
