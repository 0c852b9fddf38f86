"""Commands as a user calls them, and servers that a command starts."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.waiting import WAIT

SECONDS = WAIT  # for one command, and for a server to start or to stop


def done(
    words: list[str], environment: dict[str, str], folder: Path, code: int | None = 0
) -> "subprocess.CompletedProcess[str]":
    """A command that has ended, with the exit code that it should have; None for any."""
    found = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert code is None or found.returncode == code, found.stderr
    return found


@contextmanager
def served(words: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[str]:
    """The address of a server, once it is ready; it has to end with 0.

    Args:
        words: its command line, for a free port.
        environment: that it gets.
        folder: that it works in.
        log: file for its log, which is JSON lines.
    """
    with log.open("wb") as sink:
        server = subprocess.Popen(words, cwd=folder, env=environment, stderr=sink)
    try:
        yield _ready(server, log)
        server.terminate()
        assert server.wait(SECONDS) == 0, log.read_text(encoding="utf-8")
    finally:
        server.kill()
        server.wait()


def _ready(server: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        whole_lines = log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for entry in map(json.loads, whole_lines):
            if "address" in entry and httpx.get(f"{entry['address']}/readyz", timeout=SECONDS).is_success:
                return str(entry["address"])
        time.sleep(0.05)
    raise AssertionError(f"not ready after {SECONDS} s: {log.read_text(encoding='utf-8')}")
