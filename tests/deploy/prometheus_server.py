"""A real Prometheus, as quick as a test: it scrapes every second, and its rules are hastened."""

import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from service.bench.process import free_port
from tests.deploy.files import ROOT, tool
from tests.waiting import WAIT

SCRAPE_S = 1.0  # a busy machine answers within that
FASTER = 60.0  # how much shorter every duration of the rules becomes: five minutes are 5 s
SHORTEST_S = 4.0  # but a rate needs several scrapes
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def hastened(rules: str) -> str:
    """Alert rules with every window and every `for` shortened, and nothing else changed."""

    def shorter(match: re.Match[str]) -> str:
        seconds = float(match[2]) * _UNITS[match[3]] / FASTER
        return f"{match[1]}{max(seconds, SHORTEST_S) * 1000:.0f}ms{match[4]}"

    windows = re.sub(r"(\[)(\d+)([smh])(\])", shorter, rules)
    return re.sub(r"(\bfor: )(\d+)([smh])()$", shorter, windows, flags=re.MULTILINE)


class Prometheus:
    """What a test asks of it."""

    def __init__(self, url: str):
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression has now."""
        answer = self._get("/api/v1/query", query=expression)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def firing(self) -> dict[str, dict[str, str]]:
        """Labels of alerts that fire, by name; of several of a name, the last."""
        alerts = self._get("/api/v1/alerts")["alerts"]
        return {
            alert["labels"]["alertname"]: alert["labels"] for alert in alerts if alert["state"] == "firing"
        }

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, with what went wrong when it was evaluated."""
        return [rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = httpx.get(self.url + path, params=parameters, timeout=WAIT)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data


@contextlib.contextmanager
def prometheus(*targets: str, cards: str) -> Iterator[Prometheus]:
    """Runs one with the shipped alerts, hastened.

    Args:
        targets: `host:port` addresses that it scrapes as the job ebseg.
        cards: the same of an exporter of metrics of GPUs.
    """
    rules = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    quick = f"{SCRAPE_S * 1000:.0f}ms"
    config = {  # JSON is YAML
        "global": {"scrape_interval": quick, "scrape_timeout": quick, "evaluation_interval": quick},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": "ebseg", "static_configs": [{"targets": list(targets)}]},
            {"job_name": "dcgm-exporter", "static_configs": [{"targets": [cards]}]},
        ],
    }
    with tempfile.TemporaryDirectory(prefix="ebseg-prometheus-") as name:
        folder = Path(name)
        (folder / "alerts.yml").write_text(hastened(rules), encoding="utf-8")
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        process, url = _started(folder)
        try:
            yield Prometheus(url)
        finally:
            process.terminate()
            try:
                process.wait(WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _started(folder: Path) -> "tuple[subprocess.Popen[bytes], str]":
    """One that is ready, and its address."""
    log = folder / "log"
    for _ in range(4):  # another process may take the port between the choice and the start
        address = f"127.0.0.1:{free_port()}"
        command = [tool("prometheus"), "--config.file=prometheus.yml", f"--web.listen-address={address}"]
        command += ["--storage.tsdb.path=data", "--log.level=warn"]
        with log.open("ab") as sink:
            process = subprocess.Popen(command, cwd=folder, stdout=sink, stderr=sink)
        if _ready(process, f"http://{address}"):
            return process, f"http://{address}"
        process.kill()
        process.wait()
    raise AssertionError(f"Prometheus did not start: {log.read_text(encoding='utf-8')}")


def _ready(process: "subprocess.Popen[bytes]", url: str) -> bool:
    end = time.monotonic() + WAIT
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/-/ready", timeout=WAIT).is_success:
                return True
        time.sleep(0.05)
    return False
