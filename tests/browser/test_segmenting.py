"""What a run begins, ends and leaves behind: Segment, Stop, words, scenes and lists."""

import re

import pytest
from playwright.sync_api import FilePayload, Page, Request, Route, expect

from tests.browser.conftest import DESKTOP, PHONE, OpenPage
from tests.browser.reading import (
    CLASSES,
    canvas,
    chips,
    choose_scene,
    found,
    legend,
    type_classes,
)
from tests.service.fakes import encoded, picture

VILLAGE = CLASSES["village"]


def test_newer_call_ends_the_one_before(visit: OpenPage) -> None:
    page = visit()
    ended: list[Request] = []
    page.on("requestfailed", lambda request: ended.append(request))
    page.route("**/v1/segment", lambda route: None, times=1)
    page.click("[data-scene=harbour]")
    expect(page.locator("#stop")).to_be_visible()
    page.click("[data-scene=room]")
    found(page, len(CLASSES["room"]))
    assert [request.failure for request in ended] == ["net::ERR_ABORTED"]
    assert "clock" in [row[0] for row in legend(page)]


def test_stop_ends_the_call_says_so_and_greys_the_mask_before(visit: OpenPage) -> None:
    page = visit()
    page.route("**/v1/segment", lambda route: None, times=1)
    page.click("[data-scene=harbour]")
    page.click("#stop")
    expect(page.locator("#run")).to_be_focused()
    expect(page.locator("#alert")).to_contain_text("Stopped")
    expect(page.locator("#alert")).to_contain_text("There is no mask yet.")
    for gone in ("result", "running", "progress"):
        expect(page.locator(f"#{gone}")).to_be_hidden()
    page.click("#run")
    found(page, len(CLASSES["harbour"]))
    expect(page.locator("#alert")).to_be_hidden()
    expect(page.locator("main")).to_have_attribute("data-outdated", "false")
    page.route("**/v1/segment", lambda route: None, times=1)
    type_classes(page, "kite")
    page.click("#stop")
    expect(page.locator("#alert")).to_contain_text("The grey mask is of the request before.")
    expect(page.locator("#mask")).to_have_css("filter", "grayscale(1)")
    page.get_by_role("button", name="Segment again").click()
    found(page, len(CLASSES["harbour"]) + 1)
    expect(page.locator("#mask")).to_have_css("filter", "none")


@pytest.mark.parametrize("after_ms", [0, 300, 550, 700])
def test_segment_never_ends_what_typing_began(visit: OpenPage, after_ms: int) -> None:
    """Typing starts a request half a second after the last word; people click about then."""
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    choose_scene(page)
    sent.clear()

    def later(route: Route) -> None:
        page.wait_for_timeout(400)
        route.continue_()

    page.route("**/v1/segment", later)
    type_classes(page, "kite")
    page.wait_for_timeout(after_ms)
    page.click("#run")
    found(page, len(VILLAGE) + 1)
    expect(page.locator("#run")).to_have_text("Segment")
    expect(page.locator("#alert")).to_be_hidden()
    assert sum(url.endswith("/v1/segment") for url in sent) == 1


def test_masks_leave_with_what_made_them(village: Page) -> None:
    village.click("#clear")
    for gone in ("result", "timing", "code"):
        expect(village.locator(f"#{gone}")).to_be_hidden()
    assert not canvas(village, "mask").any()
    expect(village.locator("#run")).to_be_disabled()
    type_classes(village, "house")
    found(village, 1)
    assert canvas(village, "mask").any()


def test_a_photograph_does_not_inherit_the_words_of_a_scene(village: Page) -> None:
    shown = village.locator("#mask")

    def choose(name: str) -> None:
        own = encoded(picture(30, 40))
        village.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": own})

    choose("own.png")
    expect(shown).to_have_attribute("aria-label", "Image own.png, no mask yet")
    expect(village.locator("#result")).to_be_hidden()
    assert chips(village) == []
    expect(village.locator("#class-input")).to_be_focused()
    type_classes(village, "house", "sky")
    found(village, 2)
    choose("other.png")  # one's own words stay
    expect(shown).to_have_attribute("aria-label", re.compile("^Image other.png and mask"))
    assert chips(village) == ["house", "sky"]


def test_own_classes_come_back_after_a_scene_and_a_list(visit: OpenPage) -> None:
    page = visit()
    type_classes(page, "kite", "tent")
    expect(page.locator("#own")).to_be_hidden()
    choose_scene(page)
    assert chips(page) == VILLAGE
    page.get_by_role("button", name="My own (2)").click()
    found(page, 2)
    assert chips(page) == ["kite", "tent"]
    expect(page.locator("#own")).to_be_hidden()
    page.select_option("#list", "voc-20")
    found(page, 20)
    page.select_option("#list", "")
    found(page, 2)
    assert chips(page) == ["kite", "tent"]
    choose_scene(page, "room")
    page.click("[aria-label='Remove clock']")  # what is left of it is one's own, too
    choose_scene(page)
    page.click("#own")
    found(page, len(CLASSES["room"]) - 1)
    page.click("#own")
    found(page, 2)
    assert chips(page) == ["kite", "tent"]
    choose_scene(page)
    own: FilePayload = {"name": "own.png", "mimeType": "image/png", "buffer": encoded(picture(30, 40))}
    page.set_input_files("#file", own)
    found(page, 2)
    assert chips(page) == ["kite", "tent"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_click_on_segment_never_takes_a_suggestion(visit: OpenPage, size: dict[str, int]) -> None:
    page = visit(size=size)
    choose_scene(page)
    page.focus("#class-input")
    page.keyboard.type("s")
    expect(page.locator("#suggestions [role=option]")).to_have_count(8)
    listed, button = page.locator("#suggestions").bounding_box(), page.locator("#run").bounding_box()
    assert listed is not None
    assert button is not None
    assert listed["height"] > 60  # two rows, and the rest by scrolling
    assert listed["y"] + listed["height"] <= button["y"]
    page.mouse.click(button["x"] + button["width"] / 2, button["y"] + button["height"] / 2)
    found(page, len(VILLAGE) + 1)
    assert chips(page) == [*VILLAGE, "s"]  # what was typed, and no word of the list
