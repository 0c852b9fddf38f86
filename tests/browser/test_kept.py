"""What stays: the last pictures of a browser, and links that carry classes and settings."""

import json

from playwright.sync_api import Page, expect

from tests.browser.conftest import Opened, OpenPage
from tests.browser.reading import CLASSES, chips, choose_scene, found, slide, type_classes
from tests.service.fakes import encoded, live, picture


def give(page: Page, name: str, height: int) -> None:
    """Chooses a picture of its own size."""
    data = encoded(picture(height, 40))
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})
    expect(page.locator("#mask")).to_have_attribute("aria-label", f"Image {name}, no mask yet")


def titles(page: Page) -> list[str]:
    read: list[str] = page.locator("#recents .scene").evaluate_all("(all) => all.map((each) => each.title)")
    return read


def test_the_last_five_pictures_come_back_and_can_be_forgotten(opened: Opened) -> None:
    with live() as (url, _):
        page = opened(url)
        page.wait_for_selector("#model:enabled")
        expect(page.locator("#last")).to_be_hidden()
        for number in range(1, 7):
            give(page, f"{number}.png", 10 * number)
        expect(page.locator("#recents .scene").first).to_have_attribute("title", "6.png")
        give(page, "3.png", 30)  # what is chosen again is the last one, and there once
        expect(page.locator("#recents .scene").first).to_have_attribute("title", "3.png")
        assert titles(page) == ["3.png", "6.png", "5.png", "4.png", "2.png"]
        page.reload()
        expect(page.locator("#recents .scene")).to_have_count(5)
        page.get_by_role("button", name="Image 5.png").click()
        expect(page.locator("#mask")).to_have_attribute("aria-label", "Image 5.png, no mask yet")
        assert page.locator("#photo").evaluate("(each) => [each.width, each.height]") == [40, 50]
        page.get_by_role("button", name="Forget 6.png").click()
        expect(page.locator("#recents .scene")).to_have_count(4)
        page.get_by_role("button", name="Forget all").click()
        expect(page.locator("#last")).to_be_hidden()
        page.reload()
        page.wait_for_selector("body[data-ready]")
        expect(page.locator("#last")).to_be_hidden()


def test_kept_pictures_are_bounded_by_their_bytes(opened: Opened) -> None:
    with live(max_bytes="100 MiB") as (url, _):
        page = opened(url)
        page.wait_for_selector("#model:enabled")
        for number in range(1, 4):  # bytes behind its end leave a PNG readable
            data = encoded(picture(30, 40)) + bytes(12 << 20)
            page.set_input_files("#file", {"name": f"{number}.png", "mimeType": "image/png", "buffer": data})
            expect(page.locator("#recents .scene").first).to_have_attribute("title", f"{number}.png")
        assert titles(page) == ["3.png", "2.png"]


def test_a_browser_without_storage_keeps_nothing_and_works(opened: Opened) -> None:
    with live() as (url, _):
        page = opened(url)
        page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined });")
        page.reload()
        page.wait_for_selector("#model:enabled")
        give(page, "own.png", 30)
        type_classes(page, "sky")
        found(page, 1)
        expect(page.locator("#last")).to_be_hidden()


def test_a_link_carries_classes_and_settings_but_no_picture(visit: OpenPage) -> None:
    page = visit()
    choose_scene(page)
    page.focus("#class-input")
    page.keyboard.type('"red, ripe apple",')
    slide(page, "threshold", 0.4)
    page.select_option("#model", label="ebseg-tiny, version 1")
    page.click("#copy-link")
    expect(page.locator("#copy-link")).to_have_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    other = visit()
    other.goto(link)
    other.reload()  # the same page with another fragment is not loaded anew
    expect(other.locator(".chip-name")).to_have_text([*CLASSES["village"], "red, ripe apple"])
    expect(other.locator("#threshold-value")).to_have_text("40%")
    expect(other.locator("#model")).to_have_value('["ebseg-tiny",1]')
    expect(other.locator("#view")).to_be_hidden()
    choose_scene(other)  # a scene has words of its own
    assert chips(other) == CLASSES["village"]
    other.select_option("#list", "voc-20")
    found(other, 20)
    other.click("#copy-link")
    assert other.evaluate("navigator.clipboard.readText()").partition("#")[2].startswith("list=voc-20")


def test_links_to_what_is_not_here_say_so(visit: OpenPage) -> None:
    for fragment, told in (
        ("list=gone", "There is no list gone"),
        ("model=gone", "This service does not serve gone"),
        ("other=7", "The link's other is no number of at most 1"),
        ("classes=%22open", "A name in double quotes ends with one"),
    ):
        page = visit()
        page.goto(f"{page.url}#{fragment}")
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text(told)


def test_classes_with_more_than_a_name_travel_as_json(visit: OpenPage) -> None:
    page = visit()
    classes = [{"name": "tree", "synonyms": ["bush"]}, {"name": "sky"}]
    state = {
        "classes": classes,
        "vocabulary": None,
        "threshold": 0,
        "tiled": True,
        "model": None,
        "version": None,
    }
    link = page.evaluate("async (state) => (await import('./static/js/link.js')).linkOf(state)", state)
    read = page.evaluate(
        "async (link) => (await import('./static/js/link.js')).readLink(new URL(link).hash)", link
    )
    assert read == {**state, "classes": classes}
    assert json.dumps(classes) not in link
