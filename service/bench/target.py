"""A service under load: where it listens, what it is sent, and what came of it."""

import http.client
import json
import re
import socket
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from service.bench.load import Load, LoadPlan, to_json
from service.bench.process import ROOT
from service.observability.quantiles import percentiles

WAIT = 60.0  # seconds for a single answer
WARM_UP = 0.1  # of the measured seconds
PERCENTILES = (50, 95, 99)


class BenchError(Exception):
    """The benchmark cannot be run, or the service did not answer as it should."""


@dataclass(kw_only=True)
class ServiceUnderLoad:
    """A service under load, and the rounds so far.

    Attributes:
        name: for people.
        host, port: where it listens.
        requests: whole ones, sent in turn.
        expect: first bytes of a good answer's body.
        connections: open at the same time.
        rate: requests a second that arrive by themselves; None keeps all connections busy.
        loads: of the rounds that were measured.
    """

    name: str
    host: str
    port: int
    requests: list[bytes]
    expect: bytes
    connections: int
    rate: float | None
    loads: list[Load] = field(default_factory=list)

    def load(self, seconds: float) -> Load:
        """Puts the service under load for so long, from a process of its own.

        Raises:
            BenchError: it cannot be reached.
        """
        plan = LoadPlan(
            host=self.host,
            port=self.port,
            requests=self.requests,
            expect=self.expect,
            connections=self.connections,
            seconds=seconds,
            warm_up=WARM_UP * seconds,
            rate=self.rate,
            seed=len(self.loads),
        )
        done = subprocess.run(
            [sys.executable, "-m", "service.bench.load"],
            cwd=ROOT,
            input=to_json(plan),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"the load on {self.name} failed: {done.stderr.strip()[-500:]}")
        return Load(**json.loads(done.stdout))

    def measure(self, seconds: float) -> None:
        """One round."""
        self.loads.append(self.load(seconds))

    def answer(self) -> bytes:
        """The body of the answer to the first request.

        Raises:
            BenchError: there is none, or it is an error.
        """
        try:
            with socket.create_connection((self.host, self.port), WAIT) as connection:
                connection.sendall(self.requests[0])
                response = http.client.HTTPResponse(connection, method="POST")
                response.begin()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{self.name} at {self.host} port {self.port}: {error}") from None
        if response.status != 200 or not body.startswith(self.expect):
            raise BenchError(
                f"{self.name} answered {response.status}: {body[:300].decode('utf-8', 'replace')}"
            )
        return body

    @property
    def rates(self) -> list[float]:
        """Pictures a second, by round."""
        return [load.rate for load in self.loads]

    @property
    def rate_median(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rates)

    @property
    def errors(self) -> Counter[str]:
        """What went wrong, over all rounds."""
        total = Counter[str]()
        for load in self.loads:
            total.update(load.errors)
        return total

    def report(self) -> dict[str, Any]:
        """What came of the rounds, as JSON values."""
        latencies = [seconds for load in self.loads for seconds in load.latencies]
        answered = sum(load.requests for load in self.loads)
        return {
            "requests": answered,
            "errors": dict(self.errors),
            "unsent": sum(load.unsent for load in self.loads),
            "latency_seconds": percentiles(latencies, PERCENTILES),
            "load_cpu_seconds_per_request": sum(load.cpu_seconds for load in self.loads) / max(1, answered),
        }

    def check(self) -> None:
        """Raises BenchError if any answer was not good."""
        if self.errors:
            what = ", ".join(f"{kind} ({count})" for kind, count in self.errors.most_common())
            first = next(load.first_error for load in self.loads if load.first_error)
            raise BenchError(f"{self.name} did not answer all requests: {what}; the first: {first}")


def batches(text: str) -> tuple[float, float]:
    """Batches, and pictures in them, of a page of metrics.

    Raises:
        BenchError: they are not there.
    """
    found = {
        name: re.findall(rf"^ebseg_batch_size_{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
        for name in ("count", "sum")
    }
    if not (found["count"] and found["sum"]):
        raise BenchError("the service's /metrics do not say how large its batches are")
    return sum(map(float, found["count"])), sum(map(float, found["sum"]))
