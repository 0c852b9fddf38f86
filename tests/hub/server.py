"""A server that speaks the Hugging Face hub's routes, and one beside it that is its CDN, both in threads."""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest

from tests.hub.faults import Faults, Heard
from tests.hub.repositories import Page, Repositories
from tests.hub.routes import Routes

READ, WRITE = "hf_only_reads_0123456789", "hf_writes_0123456789abcd"
"""Tokens that the hub knows."""


class _Server(ThreadingHTTPServer):
    """Closes connections that clients keep for later, so that nothing is left at the end."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, handler: type[Routes]):
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went away are no error of ours."""
        with suppress(ConnectionError, TimeoutError, ValueError):
            raise  # the error that is being handled

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Hub:
    """The hub.

    Attributes:
        url: for HF_ENDPOINT.
        cdn: address of the host that large files come from.
        repositories: what it holds.
        faults: what goes wrong.
        requests: all that came, to both hosts.
        pages: files under /web/, by name.
        tokens: known tokens with "read" or "write".
        environment: for child processes.
    """

    def __init__(self, folder: Path):
        self.repositories = Repositories(folder / "hub")
        self.faults = Faults()
        self.requests: list[Heard] = []
        self.pages: dict[str, Page] = {}
        self.tokens = {READ: "read", WRITE: "write"}
        self.home = folder / "home"
        self.url = self.cdn = ""
        self._page = [1000]

    @property
    def environment(self) -> dict[str, str]:
        """What leads a child's huggingface_hub here, and its cache into a folder of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",  # one request less that no test asked for
        }

    @property
    def page(self) -> int:
        """Entries in one page of a listing."""
        return self._page[0]

    @page.setter
    def page(self, entries: int) -> None:
        self._page[0] = entries

    def sent(self, part: str = "") -> int:
        """Bytes of all bodies that were sent for paths that hold a text."""
        return sum(request.sent for request in self.requests if part in request.path)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serves for as long as the block lasts."""
        closing = threading.Event()
        urls: dict[str, str] = {}
        shared: Mapping[str, Any] = {
            "repositories": self.repositories,
            "faults": self.faults,
            "requests": self.requests,
            "tokens": self.tokens,
            "urls": urls,
            "closing": closing,
            "page": self._page,
            "pages": self.pages,
        }
        servers = [
            _Server(type("Handler", (Routes,), {**shared, "host": host, "timeout": 300}))
            for host in ("hub", "cdn")
        ]
        self.url, self.cdn = (server.url for server in servers)
        urls |= {"hub": self.url, "cdn": self.cdn}
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            closing.set()
            for server in servers:
                server.shutdown()
                for connection in list(server.open):
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                server.server_close()
            for thread in threads:
                thread.join()


@contextmanager
def hub_server(folder: Path) -> Iterator[Hub]:
    """A hub; this process and its children find it, with an empty cache and no token.

    huggingface_hub reads the environment when it is imported, so that its constants are set as well.
    """
    hub = Hub(folder)
    with hub.running(), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
            patch.delenv(name)
        for name, value in hub.environment.items():
            patch.setenv(name, value)
        constants = huggingface_hub.constants
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(constants, "HF_HOME", str(hub.home))
        places = {
            "HF_HUB_CACHE": "hub",
            "HF_ASSETS_CACHE": "assets",
            "HF_TOKEN_PATH": "token",
            "HF_XET_CACHE": "xet",
        }
        for name, place in places.items():
            patch.setattr(constants, name, str(hub.home / place))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        fsspec.get_filesystem_class("hf").clear_instance_cache()
        try:
            yield hub
        finally:
            huggingface_hub.close_session()
            fsspec.get_filesystem_class("hf").clear_instance_cache()
