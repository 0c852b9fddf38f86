"""The interface's own page, in a network that has nothing but the service."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from service.app import create_app
from service.http.openapi import SEGMENT_QUERY
from service.server import build_server
from tests.browser.conftest import Opened, OpenPage
from tests.browser.reading import ROOT
from tests.service.fakes import in_thread, settings
from tests.service.hot_loading.model_fakes import SELDOM, Loader, publish
from tests.service.http.test_openapi import OPERATIONS, reachable

ADMIN = "an-admin-key-for-docs-1"
SCENE = ROOT / "samples" / "village.jpg"
BODIES = ["multipart/form-data", "application/json", "image/jpeg"]
# what each operation answers to the first click, where that is not 200
OTHERS = {"store_vocabulary": "201", "remove_vocabulary": "204"}


def opened_operation(page: Page, name: str) -> Locator:
    """An operation of /docs, ready to be filled in."""
    block = page.locator(f".opblock[id$='-{name}']")
    block.locator(".opblock-summary-control").click()
    block.locator("button", has_text="Try it out").click()
    return block


def executed(block: Locator) -> str:
    """The status of what comes back."""
    block.locator("button", has_text="Execute").click()
    # `expect` would draw up the whole page's roles at each look that comes too early
    status = block.locator(".live-responses-table .response-col_status", has_text=re.compile(r"^\s*\d{3}"))
    status.wait_for()
    return (status.text_content() or "").strip()[:3]


def docs(page: Page) -> Page:
    """The page, by the link that leads there."""
    page.get_by_role("link", name="API").click()
    expect(page.locator(".opblock-summary-path")).to_contain_text(["/v1/segment"])
    return page


@pytest.mark.parametrize("media", BODIES)
def test_a_chosen_picture_is_segmented_at_the_first_click(visit: OpenPage, media: str) -> None:
    page = docs(visit())
    block = opened_operation(page, "segment")
    if media != BODIES[0]:
        block.get_by_label("Request content type").select_option(media)
    if media != "application/json":
        block.locator("input[type=file]").set_input_files(SCENE)
    rows = block.locator(".parameters-container tbody tr")
    expect(rows).to_have_count(len(SEGMENT_QUERY) if media == "image/jpeg" else 0)  # no other body needs them
    expect(block.locator(".parameters-container")).to_be_visible(visible=media == "image/jpeg")
    if media == "image/jpeg":
        block.get_by_placeholder("vocabulary", exact=True).fill("voc-20")
    assert executed(block) == "200"
    body = block.locator(".live-responses-table .response-col_description code").first
    answer = json.loads(body.text_content() or "")
    assert answer["size"] == ({"width": 8, "height": 8} if "json" in media else {"width": 512, "height": 384})


@contextmanager
def administered(registry: Path) -> Iterator[str]:
    """A server whose model has the versions that the examples of its administration name: its address."""
    for version in (3, 4, 5):  # the newest serves, the others can be asked for
        publish(registry, "fake", version)
    # A look between two clicks would serve the newest again, and the clock tell what is rolled back
    own = settings(
        registry=str(registry), model="fake", device="cpu", admin_keys=ADMIN, registry_poll_s=SELDOM
    )
    app = create_app(own, load=Loader())
    with in_thread(build_server(app, own), ready=lambda: app.state.service.state == "ready") as url:
        yield url


def without_errors(route: Route) -> None:
    """The service's document, without what its operations answer to mistakes.

    No form is made of these, and Swagger UI goes through the whole document for each operation it opens.
    """
    document = route.fetch().json()
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"] = {
                status: answer for status, answer in operation["responses"].items() if status < "300"
            }
    named = reachable(document, document["paths"])
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: schemas[name] for name in named}
    route.fulfill(json=document)


def test_every_route_answers_the_first_click(opened: Opened, tmp_path: Path) -> None:
    with administered(tmp_path) as url:
        page = opened(url)
        page.route("**/openapi.json", without_errors)
        docs(page)
        page.get_by_role("button", name="Authorize").first.click()
        page.locator(".auth-container input").first.fill(ADMIN)
        page.locator(".auth-container").first.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").first.click()
        answered = {}
        for name in OPERATIONS:
            block = opened_operation(page, name)
            for file in block.locator("input[type=file]").all():
                file.set_input_files(SCENE)
            answered[name] = executed(block)
            block.locator(".opblock-summary-control").click()
    assert answered == {name: OTHERS.get(name, "200") for name in OPERATIONS}


def test_each_error_shows_an_example_of_its_own(visit: OpenPage) -> None:
    page = docs(visit())
    block = page.locator(".opblock[id$='-segment']")
    block.locator(".opblock-summary-control").click()
    details = set()
    rows = block.locator(".responses-table:not(.live-responses-table) tr.response")
    for row in rows.all():
        status = (row.locator(".response-col_status").text_content() or "").strip()
        if status == "200":
            continue
        shown = json.loads(row.locator(".model-example code").first.text_content() or "")
        assert str(shown["status"]) == status
        details.add(shown["detail"])
    assert len(details) == rows.count() - 1
