"""The server as a process of its own: signals and exit codes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.service.fakes import PNG

ROOT = Path(__file__).parents[2]
WAIT = 30.0


@contextmanager
def serving(seconds: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process whose engine takes `seconds`, and its address."""
    command = [sys.executable, "-m", "tests.service.fakes", str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            logged = json.loads(line)
            if "address" in logged:
                break
        else:
            pytest.fail("the server never listened")
        yield process, logged["address"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)


def segment(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/segment", files={"image": PNG}, data={"classes": "sky"}, timeout=WAIT)


def test_sigterm_drains_and_leaves_with_0() -> None:
    with serving(seconds=0.5) as (process, url), ThreadPoolExecutor(1) as client:
        end = time.monotonic() + WAIT
        while httpx.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < end
        working = client.submit(segment, url)
        while "ebseg_inflight 1.0" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        assert working.result().status_code == 200
        _, log = process.communicate(timeout=WAIT)
        assert process.returncode == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez")
    lines = [json.loads(line) for line in log.splitlines()]
    access = [line for line in lines if line["logger"] == "service.access"]
    assert access[-1]["route"] == "/v1/segment"
    assert access[-1]["status"] == 200
    assert access[-1]["duration_ms"] >= 500
    assert access[-1]["request_id"] == working.result().headers["x-request-id"]
    assert not [line for line in lines if line["level"] in ("warning", "error")]
