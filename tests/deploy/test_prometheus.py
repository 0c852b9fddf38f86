"""A real Prometheus scrapes a running service: the dashboard has data, and faults make the alerts fire."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.runtime import Service
from service.server import build_server, listen
from tests.deploy.dashboard import CARD_METRICS, as_asked, queries
from tests.deploy.files import ROOT
from tests.deploy.prometheus_server import Prometheus, hastened, prometheus
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.cli_calls import run
from tests.service.fakes import PNG, encoded, settings
from tests.service.hot_loading.model_fakes import Loader, publish
from tests.waiting import WAIT, wait_until

WINDOW = "10s"  # of the dashboard's rates
MOST_BYTES = 10_000
CLIENTS = 12


@dataclass
class Running:
    """Everything that a test touches."""

    url: str
    service: Service
    load: Loader
    registry: Path
    redis: RedisServer
    prometheus: Prometheus
    dead: str  # a second target, at which nobody listens

    def segment(self, picture: bytes = PNG, classes: str = "sky,tree") -> int:
        answer = httpx.post(
            f"{self.url}/v1/segment", files={"image": picture}, data={"classes": classes}, timeout=WAIT
        )
        return answer.status_code

    def segment_new_names(self) -> int:
        """Class names that only Redis could know."""
        return self.segment(classes=f"tree {time.monotonic_ns()}")

    def work(self) -> None:
        """A bit of everything that the dashboard shows."""
        assert self.segment() == 200  # the same picture again and again: hits of the prediction cache
        assert self.segment(PNG + str(time.monotonic_ns()).encode()) == 200  # another one: a batch
        assert self.segment(b"x" * MOST_BYTES) == 413
        assert self.segment_new_names() == 200
        stored = httpx.put(f"{self.url}/v1/vocabularies/mine", json={"classes": ["a"]}, timeout=WAIT)
        assert stored.is_success
        assert httpx.get(f"{self.url}/v1/vocabularies/mine", timeout=WAIT).is_success


@contextmanager
def served(load: Loader, registry: Path, redis_url: str) -> Iterator[tuple[str, Service]]:
    """A real server of a registry of small fake versions."""
    own = settings(
        registry=str(registry),
        model="a",
        registry_poll_s=0.05,
        redis_url=redis_url,
        prediction_cache_bytes=1 << 20,
        max_bytes=MOST_BYTES,
        max_pending=CLIENTS // 2,
        timeout_ms=20_000,
    )
    app = create_app(own, load=load)
    service: Service = app.state.service
    server = build_server(app, own)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started and service.state == "ready")
            yield f"127.0.0.1:{listener.getsockname()[1]}", service
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


def wait_for(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    wait_until(condition, known=lambda: str(what()), pause=0.05)


class Exporter(BaseHTTPRequestHandler):
    """Metrics of one card as NVIDIA's DCGM exporter writes them."""

    def do_GET(self) -> None:
        labels = 'gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA L4",Hostname="node"'
        body = "".join(
            f"# TYPE {name} gauge\n{name}{{{labels}}} {value}\n" for name, value in CARD_METRICS.items()
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def card_exporter() -> Iterator[str]:
    """The address of one that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(WAIT)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    registry, load = tmp_path_factory.mktemp("registry"), Loader()
    publish(registry, "a", 1)
    with listen(
        "127.0.0.1", 0
    ) as nobody:  # bound, so that no one takes the port; closed before it is scraped
        dead = f"127.0.0.1:{nobody.getsockname()[1]}"
    with (
        redis_server() as redis,
        served(load, registry, redis.url) as (address, service),
        card_exporter() as cards,
        prometheus(address, dead, cards=cards) as scraper,
    ):
        yield Running(f"http://{address}", service, load, registry, redis, scraper, dead)


def note(fired: set[str], scraper: Prometheus) -> set[str]:
    """Adds what fires now to what has fired."""
    fired |= set(scraper.firing())
    return fired


def finite(found: list[dict[str, object]]) -> bool:
    """Whether there are samples, and at least one is a number."""
    values = [float(sample["value"][1]) for sample in found]  # type: ignore[index]
    return any(math.isfinite(value) for value in values)


def test_every_query_of_the_dashboard_returns_data(running: Running) -> None:
    missing: list[str] = []

    def complete() -> bool:
        running.work()
        missing[:] = [
            title
            for title, query in queries()
            if not finite(running.prometheus.query(as_asked(query, WINDOW)))
        ]
        return not missing

    wait_for(complete, lambda: missing)
    assert {rule["health"] for rule in running.prometheus.rules()} <= {"ok", "unknown"}


@contextmanager
def asking(running: Running, content: bytes) -> Iterator[None]:
    """A client that has pictures of its own segmented, one after the other."""
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            running.segment(content + number.to_bytes(4, "big"))
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as client:
        asked = client.submit(ask)
        try:
            yield
        finally:
            stop.set()
            asked.result(WAIT)


def test_faults_make_the_alerts_fire(running: Running) -> None:
    """Each part of the deployment breaks in turn; what is well stays quiet."""
    running.work()
    wait_for(lambda: "EBSegDown" in running.prometheus.firing(), running.prometheus.firing)
    assert running.prometheus.firing()["EBSegDown"]["instance"] == running.dead
    quiet = {
        "EBSegAllDown",
        "EBSegStuck",
        "EBSegOverloaded",
        "EBSegRedisAway",
        "EBSegVersionRefused",
        "EBSegFailing",
    }
    assert quiet.isdisjoint(running.prometheus.firing())

    publish(running.registry, "a", 2, weights="these weights are broken")
    wait_for(lambda: "EBSegVersionRefused" in running.prometheus.firing(), running.prometheus.firing)

    running.redis.kill()
    wait_for(
        lambda: running.segment_new_names() == 200 and "EBSegRedisAway" in running.prometheus.firing(),
        running.prometheus.firing,
    )

    gate = threading.Event()
    (engine,) = [engine for engine in running.load.engines if not engine.closed]
    engine.gate = gate
    fired: set[str] = set()
    stop = threading.Event()

    def knock(number: int) -> None:
        while not stop.is_set():  # a picture of its own each time, else the prediction cache answers
            running.segment(PNG + bytes([number]))
            time.sleep(0.02)

    with ThreadPoolExecutor(CLIENTS) as clients:
        for number in range(CLIENTS):
            clients.submit(knock, number)
        try:
            wait_for(
                lambda: {"EBSegStuck", "EBSegOverloaded"} <= note(fired, running.prometheus), lambda: fired
            )
        finally:
            stop.set()
            gate.set()
    assert "EBSegAllDown" not in fired
    assert running.service.state == "ready"
    wait_for(lambda: "EBSegStuck" not in running.prometheus.firing(), running.prometheus.firing)


def test_a_canary_is_judged_by_what_prometheus_has(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """After all faults: a good one is to go on; one that fails is withdrawn, told of and alerted about."""
    running.redis.stop()
    running.redis.start()
    black, failure = encoded(np.zeros((6, 8, 3), np.uint8)), RuntimeError("this version cannot do that")
    running.load.made = lambda engine: setattr(engine, "error", failure if engine.info.version == 4 else None)
    change = ["--registry", str(running.registry)]
    watching = ["--percent", "50", *change, "--url", running.url, "--watch"]
    watching += ["--prometheus", running.prometheus.url, "--every", "0.3", "--answers", "20"]
    assert run("models", "pin", "a", "1", *change) == 0
    for number in (3, 4):
        publish(running.registry, "a", number)
    with asking(running, black):
        assert run("models", "canary", "a", "3", *watching) == 0
        assert "all: ebseg models pin a 3" in capsys.readouterr().out.splitlines()[-1]
        assert run("models", "canary", "a", "4", *watching) == 1
        *_, before, last = capsys.readouterr().out.splitlines()
        assert last == "back: ebseg models rollback a"
        assert "version 4 was withdrawn: " in before or ": go back" in before
        wait_for(lambda: "EBSegRolledBack" in running.prometheus.firing(), running.prometheus.firing)
    wait_for(lambda: running.prometheus.query('ebseg_announcements_heard{job="ebseg"} == 1'))


def test_rules_are_hastened_and_nothing_else() -> None:
    rules = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    quick = hastened(rules)
    assert "[5000ms]" in quick
    assert "for: 5000ms" in quick
    assert quick.count("ms]") == rules.count("m]") + rules.count("h]")
    assert quick.count("for: ") == rules.count("for: ")
    assert hastened("expr: a > 5\nfor: 2h\n") == "expr: a > 5\nfor: 120000ms\n"
