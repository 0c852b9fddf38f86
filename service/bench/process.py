"""A server in a process of its own on this machine: how the bench, the demo and the tests start one.

It listens on a port that it was given, or says at which address in its log, which is then JSON lines.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import service

ROOT = Path(service.__file__).parents[1]  # where `-m` finds our modules, installed or not
HOST = "127.0.0.1"
START = 120.0  # seconds until a server must be ready
STOP = 15.0  # seconds until one that was asked to stop is killed
MOST_OF_A_LOG = 2000  # characters of a server's last words that are shown
PAUSE = 0.05  # seconds between two looks


class ServerFailedError(Exception):
    """A server did not start; holds what it said last.

    Attributes:
        exit_code: that it ended with; None if it took too long.
    """

    def __init__(self, message: str, exit_code: int | None = None):
        super().__init__(message)
        self.exit_code = exit_code


class ServerProcess:
    """Begins to run a server; a context manager that leaves no process behind.

    Args:
        command: its command line.
        name: for people; its first word if left out.
        port: that it shall listen on; None if its log will tell.
        ready: path that answers 200 as soon as the server is ready.
        log: file for all that it prints; None for one that goes with it.
        folder: that it works in; None for the present one.
        environment: that it gets; None for ours.
        start, stop: seconds until it must be ready, and until one that was asked to stop is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str = "",
        port: int | None = None,
        ready: str = "/readyz",
        log: Path | None = None,
        folder: Path | None = ROOT,
        environment: Mapping[str, str] | None = None,
        start: float = START,
        stop: float = STOP,
    ):
        self.host = HOST
        self.port = port or 0  # 0 until the log tells
        self._name = name or command[0]
        self._ready = ready
        self._start_s, self._stop_s = start, stop
        self._gone = False  # with all that it started
        # a file and no pipe: nobody reads along while the load runs
        self._log: Any = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            # so that its own processes can be paused and ended with it, and Ctrl-C reaches us alone
            start_new_session=True,
        )

    @classmethod
    def module(cls, module: str, *args: str, ready: str) -> Self:
        """`python -m MODULE ARGS --port PORT`, on a free port."""
        port = free_port()
        command = [sys.executable, "-m", module, *args, "--port", str(port)]
        return cls(command, name=module, port=port, ready=ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Its address, once it listens."""
        return f"http://{self.host}:{self.port}"

    def wait(self) -> None:
        """Waits until the server is ready.

        Raises:
            ServerFailedError: it stopped, or took too long.
        """
        self._wait(lambda: self._listens() and self._is_ready(), "ready")

    def pause(self) -> None:
        """Takes the processor away from the server: some poll while they have nothing to do."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused server go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ends the server and everything that it started; its exit code. May be called again."""
        if not self._gone:
            self.resume()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._stop_s)
        return self.kill()

    def kill(self) -> int:
        """Ends at once whatever of it still runs; its exit code."""
        if not self._gone:
            self._signal(signal.SIGKILL)
            self._gone = True
        return self._process.wait()

    def log_text(self) -> str:
        """All that it has printed so far."""
        length = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), length, 0).decode("utf-8", "replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON objects in its log so far, from whole lines; others are left out."""
        whole = self.log_text().rpartition("\n")[0]
        lines = []
        for text in whole.splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
        return lines

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + self._start_s
        while not done():
            code = self._process.poll()
            if code is not None:
                raise ServerFailedError(
                    f"{self._name} stopped before it was {what}: {self._last_words()}", code
                )
            if time.monotonic() > end:
                raise ServerFailedError(
                    f"{self._name} was not {what} in {self._start_s:g} s: {self._last_words()}"
                )
            time.sleep(PAUSE)

    def _listens(self) -> bool:
        """Whether it is known where it does."""
        if not self.port:
            addresses = (str(line["address"]) for line in self.log_lines() if "address" in line)
            if (url := next(addresses, None)) is not None:
                self.host, self.port = address(url)
        return self.port > 0

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", self._ready)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        return self.log_text()[-MOST_OF_A_LOG:].strip() or "it said nothing"


def free_port() -> int:
    """A port of this machine that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def address(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST[:PORT]`.

    Raises:
        ValueError: it is something else.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url}: must be http://HOST:PORT")
    return parts.hostname, port
