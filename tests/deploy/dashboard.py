"""The Grafana dashboard's panels and queries."""

import json
from typing import Any

from tests.deploy.files import ROOT

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "ebseg.json"


def dashboard() -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return document


def queries() -> list[tuple[str, str]]:
    """Title and PromQL of every query, with Grafana's variables in it."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def as_asked(query: str, window: str) -> str:
    """The query as Grafana sends it: all instances and models, and a window for rates."""
    return query.replace("$__rate_interval", window).replace("$instance", ".*").replace("$model", ".*")
