"""A server as a process of its own, what its log and its metrics say, and how much memory it takes."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import WAIT

ROOT = Path(__file__).parents[3]
HOST = "127.0.0.1"
START_S = STOP_S = WAIT


class Metrics:
    """One scrape of `/metrics`."""

    def __init__(self, text: str):
        self._samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 if there is none."""
        return sum(
            value
            for sample, own, value in self._samples
            if sample == f"ebseg_{name}" and labels.items() <= own.items()
        )

    def by_label(self, name: str, *labels: str, **chosen: str) -> dict[str, float]:
        """Values of a metric, under the values of some labels with slashes between."""
        found: dict[str, float] = {}
        for sample, own, value in self._samples:
            if sample == f"ebseg_{name}" and chosen.items() <= own.items():
                key = "/".join(own[label] for label in labels)
                found[key] = found.get(key, 0.0) + value
        return found


class Server:
    """A running server that logs JSON lines into a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path):
        self.process = process
        self.port = 0
        self._log = log

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    @property
    def url(self) -> str:
        """Its address, once it listens."""
        return f"http://{HOST}:{self.port}"

    def resident(self) -> int:
        """Bytes of its memory that are in use."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """That all of its threads have worked."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> list[dict[str, Any]]:
        """The lines of its log so far; whole ones only, and none that is no JSON."""
        whole = self.log_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def log_text(self) -> str:
        """The log as it is."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; blocks."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """The document of a GET; blocks."""
        return json.loads(self.get(path)[1])

    def metrics(self) -> Metrics:
        """A scrape; blocks."""
        return Metrics(self.get("/metrics")[1].decode())

    def wait_for_address(self) -> None:
        """Blocks until it listens."""
        self._wait(self._find_port, "listen")

    def wait_until_ready(self) -> None:
        """Blocks until it takes requests."""
        self.wait_for_address()
        self._wait(lambda: self.get("/readyz")[0] == 200, "become ready")

    def terminate(self) -> None:
        """Tells it to end, as an operator does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Blocks until it has ended; returns its exit code."""
        return self.process.wait(STOP_S)

    def stop(self) -> int:
        """Ends it as an operator does; returns its exit code."""
        self.terminate()
        return self.wait()

    def _find_port(self) -> bool:
        for line in self.log():
            if "address" in line:
                self.port = int(str(line["address"]).rpartition(":")[2])
                return True
        return False

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + START_S
        while not done():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended before it did {what}: {self.log_text()[-2000:]}")
            if time.monotonic() > end:
                raise RuntimeError(f"the server did not {what} in {START_S:g} s: {self.log_text()[-2000:]}")
            time.sleep(0.02)


@contextmanager
def started(module: str, *options: str, **environment: str) -> Iterator[Server]:
    """A server that may not listen yet; killed at the end if it still runs.

    Args:
        module: what `python -m` runs. It takes a free port, and logs JSON lines to stderr.
        options: of its command line.
        environment: what it gets besides ours; of our settings for a service it gets none.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EBSEG_")}
    with tempfile.TemporaryDirectory(prefix="ebseg-soak-") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=ROOT,
                env=inherited | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        server = Server(process, log)
        try:
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(STOP_S)


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """`ebseg serve` with these options, once it takes requests."""
    with started("ebseg", "serve", "--host", HOST, "--port", "0", *options) as server:
        server.wait_until_ready()
        yield server
