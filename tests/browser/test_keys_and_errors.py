"""Keys, refusals and outages: a real server with an engine that needs no model."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import Opened
from tests.browser.reading import CLASSES, chips, found, scene, type_classes
from tests.service.fakes import FakeEngine, encoded, live, picture
from tests.service.inference_protocol.wire import segment
from tests.waiting import WAIT

KEY = "a-key-for-the-page-1"
PICTURE = encoded(picture(30, 40))


def own(data: bytes) -> FilePayload:
    return {"name": "own.png", "mimeType": "image/png", "buffer": data}


def give_key(page: Page, key: str) -> None:
    page.fill("#key", key)
    page.get_by_role("button", name="Use this key").click()


def test_key_is_asked_for_kept_in_the_tab_and_never_shown(opened: Opened) -> None:
    with live(api_keys=KEY) as (url, _):
        page = opened(url)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(page.get_by_label("API key", exact=True)).to_be_focused()
        give_key(page, "wrong-key-wrong-key")
        expect(page.locator("#key-why")).to_have_text("This key is unknown. Is it complete?")
        with page.expect_request("**/v1/models") as asked:
            give_key(page, KEY)
        assert asked.value.headers["x-api-key"] == KEY
        expect(dialog).to_be_hidden()
        expect(page.locator("#model")).to_be_enabled()
        page.click("[data-scene=village]")
        found(page, len(CLASSES["village"]))
        for tab in ("curl", "Python"):
            page.get_by_role("tab", name=tab).click()
            expect(page.locator("#code-text")).to_contain_text("EBSEG_API_KEY")
        assert KEY not in page.content()
        kept = "[sessionStorage, localStorage].map((each) => Object.values(each))"
        assert page.evaluate(kept) == [[KEY], []]
        assert page.context.cookies() == []
        page.reload()  # the tab still knows it
        expect(page.locator("#model")).to_be_enabled()
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="API key").click()
        page.get_by_role("button", name="Forget it").click()
        assert page.evaluate(kept) == [[], []]
        page.click("[data-scene=room]")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_contain_text("this needs a key", ignore_case=True)


def test_full_queue_is_waited_for_as_the_service_says(opened: Opened) -> None:
    engine = FakeEngine()
    with live(engine, max_pending=1) as (url, service), ThreadPoolExecutor(1) as other:
        page = opened(url)
        for _ in range(10):  # so that one step at the gate does not make all others look as slow
            assert segment(url, scene()).status_code == 200
        engine.running.clear()
        engine.gate = threading.Event()
        slow = other.submit(segment, url)  # takes the only place, and the device
        try:
            assert engine.running.wait(WAIT)
            assert service.admission.pending == 1
            with page.expect_response("**/v1/segment") as refusal:
                page.click("[data-scene=village]")
            assert refusal.value.status == 429
            assert int(refusal.value.headers["retry-after"]) >= 1
            expect(page.locator("#alert.waiting")).to_contain_text("The queue is full")
            expect(page.locator("#alert.waiting")).to_contain_text("Trying again in")
            with page.expect_response("**/v1/segment") as second:  # by itself
                pass
            assert second.value.status == 429
        finally:
            engine.gate.set()
        assert slow.result().status_code == 200
        found(page, len(CLASSES["village"]))
        expect(page.locator("#alert")).to_be_hidden()
        assert chips(page) == CLASSES["village"]


def test_server_that_is_gone_is_told_and_tried_again(opened: Opened) -> None:
    with contextlib.ExitStack() as running:
        url, _ = running.enter_context(live())
        page = opened(url)
        page.click("[data-scene=village]")
        found(page, len(CLASSES["village"]))
        running.close()
        type_classes(page, "kite")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The service cannot be reached")
        expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
    with live(port=0) as (again, _):
        # the same address is not to be had for sure, so the new server's answers come in its place
        page.route(
            "**/v1/segment", lambda route: route.fulfill(response=route.fetch(url=f"{again}/v1/segment"))
        )
        alert.get_by_role("button", name="Try again").click()
        found(page, len(CLASSES["village"]) + 1)
        expect(page.locator("#alert")).to_be_hidden()


def test_broken_picture_and_wrong_classes_are_told_in_words(opened: Opened) -> None:
    with live(max_classes=3, max_bytes=20_000) as (url, _):
        page = opened(url)
        type_classes(page, "sky", "tree")
        page.set_input_files("#file", own(PICTURE[:60]))
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The image is broken or cut short")
        expect(alert).to_contain_text("Request ")
        expect(page.locator("#result")).to_be_hidden()
        assert alert.get_by_role("button").count() == 0  # the same would come again
        page.set_input_files("#file", own(PICTURE))
        found(page, 2)
        expect(alert).to_be_hidden()
        type_classes(page, "hay", "sand")
        expect(alert).to_contain_text("4 classes are too many; at most 3 are taken")
        page.click("[aria-label='Remove sand']")
        found(page, 3)
        page.set_input_files("#file", own(PICTURE + bytes(19_990 - len(PICTURE))))  # too large with its form
        expect(alert).to_contain_text("The body is too large; at most 20000 bytes are taken.")
        expect(page.get_by_role("status").first).to_have_text("there is no new mask")
        page.set_input_files("#file", own(PICTURE + bytes(60_000)))
        expect(alert).to_contain_text("has 0.0573 MiB; this service takes 0.0191 MiB at the most.")


def test_answers_of_a_proxy_and_a_lost_service_at_the_start(opened: Opened) -> None:
    with live() as (url, _):
        page = opened(url)
        page.route(
            "**/v1/segment", lambda route: route.fulfill(status=502, body="<html>bad gateway"), times=1
        )
        page.click("[data-scene=village]")
        expect(page.get_by_role("alert")).to_contain_text("The service answered with status 502.")
        page.get_by_role("button", name="Try again").click()
        found(page, len(CLASSES["village"]))
        page.route("**/v1/models", lambda route: route.abort(), times=1)
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("The service cannot be reached")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#model")).to_be_enabled()
        expect(page.locator("#alert")).to_be_hidden()


def test_model_that_still_loads_is_waited_for(opened: Opened) -> None:
    with live() as (url, _):
        page = opened(url)
        page.route("**/v1/models", lambda route: route.fulfill(json={"models": []}), times=1)
        page.reload()
        expect(page.locator("#model option")).to_have_text("loading the model")
        expect(page.locator("#model")).to_be_enabled()
        assert page.locator("#model option").all_text_contents() == ["fake", "fake, version 3"]
