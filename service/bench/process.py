"""A server under test in a process of its own, on a free port of this machine."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import service

ROOT = Path(service.__file__).parents[1]  # where `-m` finds our modules, installed or not
START = 120.0  # seconds until a server must be ready
STOP = 15.0  # seconds until one that was told to stop is killed
MOST_OF_A_LOG = 2000  # characters of a server's last words that are shown


class ServerFailedError(Exception):
    """A server did not start; holds what it said last."""


class ServerProcess:
    """Begins to run `python -m MODULE ARGS --port PORT`; a context manager that leaves no process behind.

    Args:
        module: what to run.
        args: before the port.
        ready: path that answers 200 as soon as the server is ready.
    """

    def __init__(self, module: str, *args: str, ready: str):
        self.host = "127.0.0.1"
        self.port = free_port()
        self._module = module
        self._ready = ready
        # a file and no pipe: nobody reads along while the load runs
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args, "--port", str(self.port)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # so that its own processes can be paused and ended with it
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait(self) -> None:
        """Waits until the server is ready.

        Raises:
            ServerFailedError: it stopped, or took too long.
        """
        end = time.monotonic() + START
        while not self._is_ready():
            if self._process.poll() is not None:
                raise ServerFailedError(f"{self._module} stopped before it was ready: {self._last_words()}")
            if time.monotonic() > end:
                raise ServerFailedError(f"{self._module} was not ready in {START:g} s: {self._last_words()}")
            time.sleep(0.05)

    def pause(self) -> None:
        """Takes the processor away from the server: some poll while they have nothing to do."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends the server and everything that it started."""
        self.resume()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, number)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", self._ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")[-MOST_OF_A_LOG:].strip() or "it said nothing"


def free_port() -> int:
    """A port of this machine that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
