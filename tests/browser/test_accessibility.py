"""Without a mouse, and without eyes."""

import re
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opened, OpenPage
from tests.browser.reading import CLASSES, choose_scene, found
from tests.service.fakes import live

MOST_TABS = 60


def violations(page: Page) -> list[Any]:
    """What axe-core finds wrong: rule, and the elements."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found: list[Any] = page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => "
        "[id, nodes.map(({ html, any }) => [html, any.map(({ message }) => message)])]))"
    )
    return found


def tab_to(page: Page, selector: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: OpenPage, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    assert violations(page) == []
    choose_scene(page)
    page.locator("#compare").click()
    page.locator("#threshold").fill("0.6")
    expect(page.locator("#legend .other-row")).to_be_visible()
    page.click("#save-open")
    page.fill("#save-name", "Wrong Name")
    page.focus("#class-input")
    page.keyboard.type("tr")
    expect(page.locator("#suggestions [role=option]").first).to_be_visible()
    page.keyboard.press("ArrowDown")
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_dialog_and_alert(opened: Opened, scheme: str) -> None:
    with live(api_keys="a-key-for-the-page-1") as (url, _):
        page = opened(url, color_scheme=scheme)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_contain_text("Try again")
        assert violations(page) == []


def test_whole_journey_by_keyboard(visit: OpenPage) -> None:
    page = visit()
    tab_to(page, "[data-scene=village]")
    page.keyboard.press("Enter")
    found(page, len(CLASSES["village"]))
    status = page.get_by_role("status").first
    expect(status).to_have_text(re.compile(r"found in [\d.]+ m?s: \w+"))
    tab_to(page, "#opacity")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#opacity-value")).to_have_text("40%")
    tab_to(page, ".chip button")
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Remove house")
    page.keyboard.press("Enter")
    expect(page.locator(":focus")).to_have_attribute("aria-label", "Remove umbrella")
    tab_to(page, "#class-input")
    page.keyboard.type("hou")
    box = page.get_by_role("combobox", name="Add a class")
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name="house", exact=True)).to_have_attribute("aria-selected", "true")
    expect(box).to_have_attribute("aria-activedescendant", "suggestion-0")
    page.keyboard.press("Enter")
    expect(page.locator(".chip-name").last).to_have_text("house")
    found(page, len(CLASSES["village"]))
    tab_to(page, "#legend button")
    page.keyboard.press("Space")
    expect(page.locator("#legend button").first).to_have_attribute("aria-pressed", "false")
    tab_to(page, "#tab-curl")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.locator("#code-text")).to_contain_text("import httpx")


def test_arrow_keys_read_the_mask_aloud(visit: OpenPage) -> None:
    page = visit()
    choose_scene(page)
    mask = page.get_by_role("application")
    expect(mask).to_have_attribute("aria-label", re.compile(r"^Image village\.jpg and mask: sand \d+\.\d%, "))
    mask.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#cross")).to_be_visible()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    expect(page.get_by_role("status").first).to_have_text(re.compile(r"^sand, \d+% sure"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("sand hidden")
    row = page.get_by_role("button", name=re.compile("^sand, "))
    expect(row).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Space")
    expect(page.get_by_role("status").first).to_have_text("sand shown")
    expect(row).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#cross")).to_be_hidden()


def test_suggestions_know_words_and_stored_lists(visit: OpenPage) -> None:
    page = visit()
    page.focus("#class-input")
    page.keyboard.type("cact")
    expect(page.locator("#suggestions [role=option]")).to_have_text(["cactus"])  # of the scenes
    page.keyboard.press("Control+A")
    page.keyboard.type("aerop")
    expect(page.locator("#suggestions [role=option]").first).to_have_text(
        re.compile("aeroplane")
    )  # of voc-20
    page.locator("#suggestions [role=option]").first.click()
    expect(page.locator(".chip-name")).to_have_text(["aeroplane"])
    expect(page.locator("#class-input")).to_be_focused()
