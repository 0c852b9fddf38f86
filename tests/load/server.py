"""A server as a process of its own, what its log and its metrics say, and how much memory it takes."""

import http.client
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.bench.process import HOST, ServerProcess
from tests.waiting import WAIT


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


class Server(ServerProcess):
    """A running server that logs JSON lines, and what it tells of itself."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def resident(self) -> int:
        """Bytes of its memory that are in use."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """That all of its threads have worked."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET; blocks."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
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
        self._wait(self._listens, "listening")

    def terminate(self) -> None:
        """Tells it to end, as an operator does."""
        self._process.terminate()

    def ended(self) -> int:
        """Blocks until it has ended; returns its exit code."""
        return self._process.wait(WAIT)


@contextmanager
def started(module: str, *options: str, **environment: str) -> Iterator[Server]:
    """A server that may not listen yet; killed at the end if it still runs.

    Args:
        module: what `python -m` runs. It takes a free port, and logs JSON lines.
        options: of its command line.
        environment: what it gets besides ours; of our settings for a service it gets none.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EBSEG_")}
    command = [sys.executable, "-m", module, *options]
    with Server(command, name=module, environment=inherited | environment, start=WAIT, stop=WAIT) as server:
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def serving(module: str, *words: str, **settings: Any) -> Iterator[Server]:
    """A service on a free port, once it takes requests.

    Args:
        module, words: what `python -m` runs, and what comes before the flags.
        settings: of the service, with dashes; those that are None are left to it.
    """
    given = {"host": HOST, "port": 0, **settings}
    flags = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    with started(module, *words, *flags) as server:
        server.wait()
        yield server
