"""Commands as a user calls them, and servers that a command starts."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.bench.process import ServerProcess
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
    with ServerProcess(
        words, environment=environment, folder=folder, log=log, start=SECONDS, stop=SECONDS
    ) as server:
        try:
            server.wait()
            yield server.url
            assert server.stop() == 0, server.log_text()
        finally:
            server.kill()
