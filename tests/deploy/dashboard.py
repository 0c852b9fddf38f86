"""The Grafana dashboard's panels and queries."""

import json
from typing import Any

from tests.deploy.files import ROOT

GRAFANA = ROOT / "docker" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "ebseg.json"

# Some of those that NVIDIA's DCGM exporter has without being asked (its default-counters.csv), with a value.
CARD_METRICS = {
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": 0.91,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.34,
    "DCGM_FI_DEV_FB_USED": 6021,
    "DCGM_FI_DEV_POWER_USAGE": 71.5,
}


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
