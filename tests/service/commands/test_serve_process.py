"""The server as a process of its own: signals and exit codes."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.load.server import started
from tests.service.inference_protocol.wire import segment
from tests.waiting import wait_until


def test_sigterm_drains_and_leaves_with_0() -> None:
    with started("tests.service.fakes", "0.5") as server, ThreadPoolExecutor(1) as client:
        server.wait()
        working = client.submit(segment, server.url)
        wait_until(lambda: server.metrics().value("inflight") == 1)
        server.terminate()
        assert working.result().status_code == 200
        assert server.ended() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")
        lines = server.log_lines()
        assert len(lines) == len(server.log_text().splitlines())  # nothing else is printed
    ready = [line["message"] for line in lines if line["message"].startswith("ready")]
    assert [re.sub(r"\d+ s", "N s", reported) for reported in ready] == [
        f"ready in N s: page {server.url}/, API {server.url}/docs"
    ]
    access = [line for line in lines if line["logger"] == "service.access"]
    assert access[-1]["route"] == "/v1/segment"
    assert access[-1]["status"] == 200
    assert access[-1]["duration_ms"] >= 500
    assert access[-1]["request_id"] == working.result().headers["x-request-id"]
    assert not [line for line in lines if line["level"] in ("warning", "error")]
