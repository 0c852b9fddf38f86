"""From a scene to a mask, and what can be done with it."""

import itertools
import re

import numpy as np
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import PHONE, OpenPage
from tests.browser.reading import (
    CLASSES,
    ask,
    canvas,
    chips,
    choose_scene,
    expected_legend,
    found,
    label_map,
    legend,
    painted,
    scene,
    shows_other,
    slide,
    type_classes,
)
from tests.service.fakes import encoded
from tests.waiting import wait_until

VILLAGE = CLASSES["village"]


def test_scene_gives_the_service_own_mask_and_figures(village: Page, url: str) -> None:
    answer = ask(url, scene(), {"classes": VILLAGE, "outputs": ["rle"]})
    assert chips(village) == VILLAGE
    assert legend(village) == expected_legend(answer)
    absent = [entry["name"] for entry in answer["classes"] if not entry["area"]]
    expect(village.locator("#missing summary")).to_have_text(f"Not found: {len(absent)}")
    assert village.locator("#missing li > span:first-child").all_text_contents() == absent
    slide(village, "opacity", 100)
    assert np.array_equal(canvas(village, "mask"), painted(answer))
    assert canvas(village, "photo").shape == (384, 512, 4)
    assert village.evaluate("document.activeElement.id") != "mask"


def test_opacity_fades_areas_but_not_their_borders(village: Page, url: str) -> None:
    labels = label_map(ask(url, scene(), {"classes": VILLAGE}))
    border = np.zeros(labels.shape, bool)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    slide(village, "opacity", 20)
    alpha = canvas(village, "mask")[:, :, 3]
    classes = labels > 0  # "other" shows the picture untouched
    assert set(alpha[border & classes]) == {255}
    assert set(alpha[~border & classes]) == {51}
    assert set(alpha[~classes]) == {0}
    expect(village.locator("#opacity-value")).to_have_text("20%")
    slide(village, "opacity", 0)
    assert not canvas(village, "mask").any()


def test_click_in_the_legend_hides_and_shows(village: Page, url: str) -> None:
    answer = ask(url, scene(), {"classes": VILLAGE})
    slide(village, "opacity", 100)
    row = village.get_by_role("button", name=re.compile("^house, trained"))
    expect(row).to_have_attribute("aria-pressed", "true")
    row.click()
    expect(row).to_have_attribute("aria-pressed", "false")
    village.mouse.move(2, 2)
    village.evaluate("document.activeElement.blur()")
    assert np.array_equal(canvas(village, "mask"), painted(answer, frozenset({"house"})))
    type_classes(village, "tree")  # house stays hidden in the next answer
    found(village, len(VILLAGE) + 1)
    expect(row).to_have_attribute("aria-pressed", "false")
    village.click("text=Show all")
    expect(row).to_have_attribute("aria-pressed", "true")
    village.click("text=Hide all")
    village.mouse.move(2, 2)
    assert not canvas(village, "mask").any()


def test_pointing_at_the_legend_dims_the_others(village: Page, url: str) -> None:
    labels = label_map(ask(url, scene(), {"classes": VILLAGE}))
    village.hover("#legend button[data-label='1']")
    alpha = canvas(village, "mask")[:, :, 3].astype(int)
    assert np.median(alpha[labels == 1]) == 89
    assert np.median(alpha[labels == 4]) == 13
    village.mouse.move(2, 2)
    assert np.median(canvas(village, "mask")[:, :, 3][labels == 4]) == 89


def test_threshold_gives_other(village: Page, url: str) -> None:
    own = ask(url, scene(), {"classes": VILLAGE})
    answer = ask(url, scene(), {"classes": VILLAGE, "background": {"threshold": 0.7}})
    assert answer["other"]["area"] > own["other"]["area"] > 0
    shows_other(village, own)
    expect(village.locator("#threshold-value")).to_have_text("50%")
    expect(village.locator("#threshold-source")).to_have_text("the model’s own")
    slide(village, "threshold", 0.7)
    shows_other(village, answer)
    found(village, len(VILLAGE))
    assert legend(village) == expected_legend(answer)
    share = village.locator("#legend .other-row .figure").text_content() or ""
    assert float(share.rstrip("%")) == pytest.approx(100 * answer["other"]["fraction"], abs=0.051)
    slide(village, "opacity", 100)
    assert np.array_equal(canvas(village, "mask"), painted(answer))
    expect(village.locator("#threshold-value")).to_have_text("70%")
    slide(village, "threshold", 0)
    expect(village.locator("#legend .other-row")).to_have_count(0)
    village.click("#threshold-own")
    shows_other(village, own)
    expect(village.locator("#threshold-own")).to_be_hidden()


def test_doubts_are_shown_and_what_the_model_is_for(visit: OpenPage) -> None:
    page = visit()
    expect(page.locator("#about")).not_to_have_attribute("open", "")
    page.click("#about summary")
    expect(page.locator("#about-facts dd").nth(1)).to_have_text("MIT")
    expect(page.locator("#about-facts")).to_contain_text("drawn Storybook scenes, not photographs")
    choose_scene(page)
    expect(page.locator("#warning")).to_be_hidden()
    type_classes(page, "face")
    found(page, len(VILLAGE) + 1)
    expect(page.locator("#warning [data-code='unknown-words']")).to_have_text(  # what a visitor can do
        '"face" is no word that ebseg-tiny knows. The words that it knows are under “About this model”.'
    )
    page.click("[aria-label='Remove face']")
    found(page, len(VILLAGE))
    expect(page.locator("#warning")).to_be_hidden()


def test_nothing_found_says_how_to_see_the_best_guess(visit: OpenPage) -> None:
    page = visit()
    expect(page.locator("#threshold-value")).to_have_text("50%")  # of the card, before any answer
    expect(page.locator("#threshold")).to_have_js_property("value", "0.5")
    choose_scene(page)
    expect(page.locator("#none-found")).to_be_hidden()
    slide(page, "threshold", 0.95)
    page.click("#clear")
    type_classes(page, "cactus", "fish", "clock")
    expect(page.locator("#result-title")).to_have_text("Found 0 of 3")
    expect(page.locator("#none-found")).to_contain_text("Lower that slider")
    slide(page, "threshold", 0)
    expect(page.locator("#none-found")).to_be_hidden()
    photograph = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    noise: FilePayload = {"name": "noise.png", "mimeType": "image/png", "buffer": encoded(photograph)}
    page.set_input_files("#file", noise)
    warning = page.locator("#warning [data-code='unlike-its-domain']")
    expect(warning).to_contain_text("its mask may mean nothing. Other models")
    expect(warning).not_to_contain_text("ebseg pull")


def test_new_classes_on_a_known_picture_use_the_prediction_cache(visit: OpenPage) -> None:
    page = visit()
    choose_scene(page, "street")
    type_classes(page, "umbrella", "pumpkin")  # the first is chosen already
    found(page, len(CLASSES["street"]) + 1)
    assert chips(page) == [*CLASSES["street"], "pumpkin"]
    expect(page.locator("#caches li.hit").first).to_have_text("Image: known, so the network did not run")
    expect(page.locator("#saved")).to_contain_text("Known image")
    expect(page.locator("#stages div", has_text="predict").locator("dd")).to_have_text("–")
    page.click("[aria-label='Remove pumpkin']")
    found(page, len(CLASSES["street"]))
    expect(page.locator("#caches li")).to_have_text(
        ["Image: known, so the network did not run", "Names: known to this process"]
    )


def test_classes_keep_their_colours_when_others_go(village: Page) -> None:
    def colors() -> dict[str, str]:
        read: dict[str, str] = village.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.chip')].map((chip) => "
            "[chip.children[1].textContent, chip.children[0].style.backgroundColor]))"
        )
        return read

    before = colors()
    village.click("[aria-label='Remove house']")
    found(village, len(VILLAGE) - 1)
    after = colors()
    assert after == {name: color for name, color in before.items() if name != "house"}
    type_classes(village, "kite")
    found(village, len(VILLAGE))
    assert len(set(colors().values())) == len(VILLAGE)


def test_hover_reads_the_class_and_its_confidence_there(village: Page, url: str) -> None:
    answer = ask(url, scene(), {"classes": VILLAGE, "outputs": ["rle", "scores"], "output_size": "image"})
    labels = label_map(answer)
    box = village.locator("#mask").bounding_box()
    assert box is not None
    for x, y in ((0.5, 0.9), (0.1, 0.1), (0.45, 0.55)):
        name = VILLAGE[labels[int(y * 384), int(x * 512)] - 1]
        village.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        expect(village.locator("#reading")).to_have_text(re.compile(rf"^{name}, \d+% sure( on average)?$"))
        expect(village.locator("#legend .read .name")).to_have_text(name)
    nudges = itertools.cycle((0, 1))

    def sure() -> str:
        village.mouse.move(box["x"] + 0.5 * box["width"] + next(nudges), box["y"] + 0.9 * box["height"])
        return village.locator("#reading").text_content() or ""

    wait_until(lambda: not sure().endswith("average"), pause=0.05)  # the confidences come after a first look
    assert re.fullmatch(r"sand, \d+% sure", sure())
    village.mouse.move(2, 2)
    expect(village.locator("#reading")).to_be_hidden()


def test_click_in_the_picture_hides_and_shows(village: Page, url: str) -> None:
    answer = ask(url, scene(), {"classes": VILLAGE})
    slide(village, "opacity", 100)
    box = village.locator("#mask").bounding_box()
    assert box is not None
    sand = (box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"])
    row = village.get_by_role("button", name=re.compile("^sand, "))
    village.mouse.click(*sand)
    expect(row).to_have_attribute("aria-pressed", "false")
    expect(village.locator("#reading")).to_have_text(re.compile(r"^sand, \d+% sure.*, hidden$"))
    expect(village.get_by_role("status").first).to_have_text("sand hidden")
    assert np.array_equal(canvas(village, "mask"), painted(answer, frozenset({"sand"})))
    village.mouse.click(*sand)
    expect(row).to_have_attribute("aria-pressed", "true")
    assert np.array_equal(canvas(village, "mask"), painted(answer))


def test_first_tap_reads_and_the_second_hides(visit: OpenPage) -> None:
    page = visit(size=PHONE, has_touch=True, is_mobile=True)
    choose_scene(page)
    box = page.locator("#mask").bounding_box()
    assert box is not None
    sand = (box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"])
    row = page.locator("#legend button", has_text="sand")
    reading = page.locator("#reading")
    page.touchscreen.tap(*sand)
    expect(reading).to_have_text(re.compile(r"^sand, \d+% sure( on average)?$"))
    expect(row).to_have_attribute("aria-pressed", "true")
    page.touchscreen.tap(*sand)
    expect(reading).to_have_text(re.compile(r"^sand, \d+% sure.*, hidden$"))
    expect(row).to_have_attribute("aria-pressed", "false")
    page.locator("#class-input").tap()
    expect(reading).to_be_hidden()


def test_model_and_version_are_sent_and_shown(village: Page) -> None:
    options = village.locator("#model option").all_text_contents()
    assert options == ["ebseg-tiny", "ebseg-tiny, version 1"]
    expect(village.locator("#code-text")).not_to_contain_text('"model"')
    with village.expect_response("**/v1/segment") as answered:
        village.select_option("#model", label="ebseg-tiny, version 1")
    assert answered.value.headers["x-ebseg-model"] == "ebseg-tiny/1"
    expect(village.locator("#code-text")).to_contain_text('"model":"ebseg-tiny","version":1')
    expect(village.locator("#answered-by")).to_contain_text("ebseg-tiny, version 1, weights ")


def test_stored_list_is_chosen_by_name_and_own_list_is_saved(visit: OpenPage, url: str) -> None:
    page = visit()
    choose_scene(page)
    page.select_option("#list", "voc-20")
    found(page, 20)
    expect(page.locator("#code-text")).to_contain_text('request={"vocabulary":"voc-20","outputs":["rle"]}')
    assert chips(page)[:3] == ["aeroplane", "bicycle", "bird"]
    page.click("[aria-label='Remove aeroplane']")
    found(page, 19)
    assert page.input_value("#list") == ""
    page.click("#clear")
    type_classes(page, "house", "hay", "clouds")
    found(page, 3)
    page.click("#save-open")
    page.fill("#save-name", "voc-20")
    expect(page.locator("#save")).to_be_disabled()
    expect(page.locator("#save-note")).to_have_text("A list of this name is built in; choose another name.")
    page.fill("#save-name", "farm")
    page.click("#save")
    expect(page.locator("#list")).to_have_value("farm")
    expect(page.locator("#code-text")).to_contain_text('"vocabulary":"farm"')
    found(page, 3)
    again = visit()
    again.select_option("#list", "farm")
    expect(again.locator(".chip-name")).to_have_text(["house", "hay", "clouds"])
    again.click("#save-open")
    again.fill("#save-name", "farm")
    expect(again.locator("#save")).to_have_text("Replace")


def test_theme_button_wins_over_the_system_and_is_remembered(visit: OpenPage) -> None:
    page = visit(color_scheme="light")
    page.get_by_role("button", name="Dark mode").click()
    for _ in range(2):
        expect(page.locator("body")).to_have_css("background-color", "rgb(14, 17, 22)")
        expect(page.locator("#theme")).to_have_attribute("aria-pressed", "true")
        page.reload()
        page.wait_for_selector("#model:enabled")
