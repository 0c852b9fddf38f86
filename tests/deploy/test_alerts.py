"""The alert rules: checked and unit-tested by promtool, and every name in them held against the code."""

import re
import subprocess
from typing import Any

import pytest
from fastapi.routing import APIRoute

from service.http.problems import KINDS
from service.observability.metrics import LOAD_RESULTS, TRIGGERS, Metrics
from service.routes import inference_protocol, segment
from tests.deploy.files import ROOT, read_yaml, tool
from tests.deploy.names import label_names, metric_names, unknown_metrics, used_metrics
from tests.e2e.documents import documents
from tests.waiting import WAIT

FOLDER = ROOT / "docker" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in read_yaml(FOLDER / "alerts.yml")["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = frozenset(rule["record"] for rule in RULES if "record" in rule)
PROMETHEUS_LABELS = {"job", "instance", "namespace"}
VALUES = {
    "reason": {kind.slug for kind in KINDS.values()},
    "trigger": set(TRIGGERS),
    "result": set(LOAD_RESULTS),
}


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool(arguments: tuple[str, str, str]) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [
        case for test in read_yaml(FOLDER / "alerts_test.yml")["tests"] for case in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in ALERTS}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_metrics_and_labels_exist(rule: dict[str, Any]) -> None:
    assert unknown_metrics(rule["expr"], RECORDED) == set()
    labels = label_names(Metrics())
    for name, matchers in re.findall(r"(ebseg_\w+)\{([^}]*)\}", rule["expr"]):
        for label, value in re.findall(r'(\w+)[=!]~?"([^"]*)"', matchers):
            assert label in labels[name] | PROMETHEUS_LABELS, f"{name} has no label {label}"
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label]


def test_the_routes_are_those_that_segment() -> None:
    """The pattern of the rules takes in every route that segments, and no other."""
    patterns = set(re.findall(r'route=~"([^"]+)"', "".join(rule["expr"] for rule in RULES)))
    (pattern,) = patterns
    routes = [
        route
        for router in (segment.router, inference_protocol.router)
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    posted = {route.path for route in routes if "POST" in (route.methods or ())}
    assert posted
    assert {path for path in (route.path for route in routes) if re.fullmatch(pattern, path)} == posted


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_alert_tells_what_to_do(rule: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert rule["annotations"]["runbook_url"] == (
        f"{{{{ $externalLabels.runbooks }}}}docs/operations.md#{rule['alert'].lower()}"
    )
    assert f"\n### {rule['alert']}\n" in text
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_operations_tells_of_no_other_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (EBSeg\w+)$", text, re.MULTILINE)) == {rule["alert"] for rule in ALERTS}
    assert ROOT / "docs" / "operations.md" in documents()


def test_names_are_found_in_queries() -> None:
    query = (
        'sum by (ebseg_track) (rate(ebseg_requests_total{route="ebseg_x"}[5m])) > ebseg:failed:ratio_rate5m'
    )
    assert used_metrics(query) == {"ebseg_requests_total", "ebseg:failed:ratio_rate5m"}
    assert unknown_metrics("ebseg_requests") == {"ebseg_requests"}
    names = metric_names(Metrics())
    assert {"ebseg_requests_total", "ebseg_batch_size_bucket", "ebseg_inflight"} <= names
    assert label_names(Metrics())["ebseg_stage_duration_seconds_bucket"] == {
        "stage",
        "model",
        "version",
        "device",
        "le",
    }
