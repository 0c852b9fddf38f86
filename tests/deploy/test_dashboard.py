"""The Grafana dashboard and how it is provisioned. That its queries return data is in test_prometheus.py."""

import re
from itertools import combinations

import pytest

from service.observability.metrics import Metrics
from tests.deploy.dashboard import CARD_METRICS, DASHBOARD, GRAFANA, as_asked, dashboard, queries
from tests.deploy.files import ROOT, read_yaml
from tests.deploy.names import label_names, metric_names, unknown_metrics, used_metrics

COLUMNS = 24


@pytest.mark.parametrize(("title", "query"), queries())
def test_query_names_what_exists(title: str, query: str) -> None:
    assert unknown_metrics(query) == set()
    assert used_metrics(query) or "up{" in query or set(re.findall(r"DCGM_\w+", query)) <= set(CARD_METRICS)
    labels = label_names(Metrics())
    for name, matchers in re.findall(r"(ebseg_\w+)\{([^}]*)\}", query):
        assert set(re.findall(r"(\w+)[=!]~?\"", matchers)) <= labels[name] | {"job", "instance"}
    assert "$" not in as_asked(query, "1m")


def test_every_metric_is_shown() -> None:
    shown = {name for _, query in queries() for name in used_metrics(query)}
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    own = {name for name in metric_names(Metrics()) if name.startswith("ebseg_")}  # process_* are everybody's
    assert bare == {re.sub(r"_(bucket|sum|count)$", "", name) for name in own}


def test_panels_lie_side_by_side() -> None:
    places = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        places[panel["id"]] = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
    assert len(places) == len(dashboard()["panels"])  # ids are unique
    assert [pair for pair in combinations(places, 2) if places[pair[0]] & places[pair[1]]] == []


def test_is_provisioned() -> None:
    (source,) = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    (provider,) = read_yaml(GRAFANA / "provisioning" / "dashboards" / "ebseg.yml")["providers"]
    compose = read_yaml(ROOT / "docker-compose.yml")["services"]
    mounts = dict(entry.split(":")[:2] for entry in compose["grafana"]["volumes"] if entry.startswith("./"))
    inside = {target: ROOT / path for path, target in mounts.items()}
    assert inside["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    assert inside[provider["options"]["path"]] == DASHBOARD.parent
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    scraped = read_yaml(ROOT / "docker" / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


def test_data_source_can_be_chosen() -> None:
    document = dashboard()
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"] for variable in document["templating"]["list"]}
    assert variables == {"datasource", "instance", "model"}
