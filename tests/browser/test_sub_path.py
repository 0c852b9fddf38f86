"""The page and /docs behind a proxy, below a path that it cuts off, and below one that it leaves."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Opened
from tests.service.fakes import PNG, live
from tests.waiting import WAIT


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, prefix: str, cut: bool):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.prefix, self.cut = urlsplit(target).netloc, prefix, cut
        self.beside: list[str] = []  # what was asked for outside of the path


class _Handler(BaseHTTPRequestHandler):
    server: _Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.startswith(f"{self.server.prefix}/"):
            self.server.beside.append(self.path)
            self.send_error(404)
            return
        path = self.path.removeprefix(self.server.prefix) if self.server.cut else self.path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        connection = http.client.HTTPConnection(self.server.target, timeout=WAIT)
        try:
            connection.request(self.command, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815


@contextmanager
def proxied(target: str, prefix: str, *, cut: bool) -> Iterator[tuple[str, list[str]]]:
    """The address below the path, and what was asked for beside it."""
    with _Proxy(target, prefix, cut) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}{prefix}", proxy.beside
        finally:
            proxy.shutdown()
            thread.join(WAIT)


@pytest.mark.parametrize("cut", [True, False])
def test_page_and_docs_below_a_path(opened: Opened, cut: bool) -> None:
    with (
        live(root_path=None if cut else "/tools/ebseg") as (target, _),
        proxied(target, "/tools/ebseg", cut=cut) as (address, beside),
    ):
        page = opened(address)
        page.wait_for_selector("#model:enabled")  # /v1/models was found
        page.get_by_role("link", name="API").click()
        expect(page.locator(".opblock-summary-path")).to_contain_text(["/v1/segment"])
        page.locator("#operations-operation-livez .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("200")
        expect(page.locator(".request-url pre")).to_have_text(f"{address}/livez")
        answer = page.request.post(
            f"{address}/v1/segment?classes=a", data=PNG, headers={"Content-Type": "image/png"}
        )
        assert answer.status == 200
        assert [path for path in beside if path != "/favicon.ico"] == []
