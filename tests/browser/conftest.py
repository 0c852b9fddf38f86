"""A real headless Chromium, and a real `ebseg serve` with the packaged model."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.reading import choose_scene
from tests.e2e.processes import served
from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
WAIT_MS = 1000 * WAIT
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
# what Chromium itself writes to the console about an answer that is an error
REFUSED = re.compile(r"Failed to load resource")


@pytest.fixture(autouse=True, scope="package")
def _patience() -> None:
    expect.set_options(timeout=WAIT_MS)


# Playwright's loop keeps this thread for as long as it runs; tests of other packages have their own loops.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    programs = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, programs), None)
    assert program, "the browser's tests need Chromium: run tests/install_tools.sh"
    # a container's root has no sandbox, and little shared memory
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `ebseg serve` with the model that comes with it."""
    log = tmp_path_factory.mktemp("serve") / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EBSEG_")}
    command = [str(Path(sys.executable).parent / "ebseg"), "serve", "--port", "0", "--device", "cpu"]
    with served(command, environment, log.parent, log) as address:
        yield address
    levels = [json.loads(line)["level"] for line in log.read_text(encoding="utf-8").splitlines()]
    assert not {"warning", "error"} & set(levels), log.read_text(encoding="utf-8")


class Opened:
    """Pages that a test has open, and what went on in them."""

    def __init__(self, browser: Browser):
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []
        self.logged: list[str] = []  # errors and warnings of the console
        self.foreign: list[str] = []  # requests to anywhere else

    def __call__(self, address: str, *, size: dict[str, int] = DESKTOP, **options: Any) -> Page:
        """A page that is loaded, in a browser that knows nothing."""
        context = self._browser.new_context(viewport=size, reduced_motion="reduce", **options)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        context.add_init_script(VIOLATIONS)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        page = context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.logged.append(f"uncaught: {error}"))
        origin = urlsplit(address).netloc

        def look(asked: str) -> None:
            if urlsplit(asked).scheme in ("http", "https", "ws", "wss") and urlsplit(asked).netloc != origin:
                self.foreign.append(asked)

        page.on("request", lambda request: look(request.url))
        self._contexts.append(context)
        self._pages.append(page)
        page.goto(f"{address}/")
        page.wait_for_selector("body[data-ready]")
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.logged.append(message.text)

    def close(self) -> None:
        violations = [one for page in self._pages for one in page.evaluate("window.violations")]
        for context in self._contexts:
            context.close()
        assert violations == []
        assert self.foreign == []


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens pages of which nothing is expected but that errors are logged, which `logged` has."""
    pages = Opened(browser)
    yield pages
    pages.close()
    assert [line for line in pages.logged if not REFUSED.search(line)] == []


OpenPage = Callable[..., Page]


@pytest.fixture
def visit(opened: Opened, url: str) -> Iterator[OpenPage]:
    """Opens the page of the real service; nothing at all may be logged on the console."""

    def go(**options: Any) -> Page:
        page = opened(url, **options)
        page.wait_for_selector("#model:enabled")
        return page

    yield go
    assert opened.logged == []


@pytest.fixture
def village(visit: OpenPage) -> Page:
    """The page with the village's mask on it."""
    page = visit()
    choose_scene(page)
    return page
