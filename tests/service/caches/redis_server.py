"""A real Redis server, for one test or a module of tests."""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from service.bench.process import free_port
from tests.waiting import WAIT


class RedisServer:
    """A `redis-server` process that keeps nothing on disk.

    Attributes:
        port: on 127.0.0.1; the same after a restart.
        url: what a client takes, with the password if there is one.
    """

    def __init__(self, program: str, folder: Path, password: str | None, options: tuple[str, ...]):
        self.port = free_port()
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}/0"
        self._clients: list[redis.Redis] = []
        self._process: subprocess.Popen[bytes] | None = None
        secret = ("--requirepass", password) if password else ()
        self._command = [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._command += ["--dir", str(folder), "--logfile", "redis.log", *secret, *options]

    def start(self) -> None:
        """Starts the server, empty, and waits until it answers."""
        assert self._process is None, "the server runs"
        command = [*self._command, "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + WAIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self._end(signal.SIGKILL)
                raise RuntimeError(f"redis-server did not start on port {self.port}")
            time.sleep(0.003)

    def stop(self) -> None:
        """Ends the server as an operator does. A server that does not run is left so."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server at once, in the midst of whatever it does."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stops its clock: connections stay, answers do not come."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client for the test itself; closed with the server's context."""
        client = redis.Redis.from_url(self.url, socket_timeout=WAIT)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Closes clients and ends the server."""
        for client in self._clients:
            client.close()
        self._end(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server does not run"
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)  # a frozen process does not end
            self._process.send_signal(number)
            self._process.wait(WAIT)
            self._process = None

    def _answers(self) -> bool:
        address = ("127.0.0.1", self.port)
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16)[:5] in (b"+PONG", b"-NOAU")
        return False


@contextlib.contextmanager
def redis_server(*options: str, password: str | None = None) -> Iterator[RedisServer]:
    """Runs a server on a free port.

    Args:
        options: of its command line, such as "--maxmemory", "2mb".
        password: that clients must give.
    """
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is not installed; `make tools` installs it"
    with tempfile.TemporaryDirectory(prefix="ebseg-redis-") as folder:
        server = _started(program, Path(folder), password, options)
        try:
            yield server
        finally:
            server.close()


def _started(program: str, folder: Path, password: str | None, options: tuple[str, ...]) -> RedisServer:
    for _ in range(4):  # another process may take the port between the choice and the start
        server = RedisServer(program, folder, password, options)
        with contextlib.suppress(RuntimeError):
            server.start()
            return server
    server = RedisServer(program, folder, password, options)
    server.start()
    return server
