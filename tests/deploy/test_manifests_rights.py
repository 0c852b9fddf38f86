"""Who may do what: pods' rights, the network, the Secret, the way into the registry's volume."""

import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.files import (
    FOLDERS,
    K8S,
    NEWEST,
    ROOT,
    SETS,
    of_kind,
    one,
    pod_labels,
    pod_spec,
    pod_templates,
    rendered,
    selects,
)

RESTRICTED = {  # what the namespace's pod security level asks of each container
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def test_example_secret_fits_and_is_rendered_nowhere() -> None:
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(example, NEWEST, strict=True)
    assert [folder for folder in FOLDERS if of_kind(folder, "Secret")] == []


@pytest.mark.parametrize("values", SETS)
def test_keys_of_the_secret(values: str) -> None:
    """Those of the example and of the documents' command; the example leaves one out, so no pod takes it."""
    text = (K8S / "secret.example.yaml").read_text(encoding="utf-8")
    example = yaml.safe_load(text)
    asked = re.findall(r"secretKeyRef': {'name': '([\w-]+)', 'key': '([\w-]+)'}", str(rendered(values)))
    if values in ("defaults", "hub"):
        assert asked == []
        return
    assert {name for name, _ in asked} == {example["metadata"]["name"]}
    keys = {key for _, key in asked}
    redis = set() if values in ("gke", "gke-autopilot") else {"redis-password"}
    assert keys == {*example["stringData"]} | redis
    assert "redis-password" not in example["stringData"]
    assert "\n  # redis-password:\n" in text
    document = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = re.findall(r"create secret generic ebseg (.*?)\n```", document, re.DOTALL)
    assert set(re.findall(r"--from-literal=([\w-]+)=", "".join(commands))) >= keys


def test_redis_may_be_reached_by_the_service_alone() -> None:
    policy = one("gpu", "NetworkPolicy", "ebseg-redis")["spec"]
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("gpu", "ebseg"))
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("canary", "ebseg-canary"))
    assert "egress" not in policy or policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def ways_out(values: str) -> list[tuple[list[Any], list[int | str]]]:
    """Where the service may connect to: peers and ports, in order."""
    policy = one(values, "NetworkPolicy", "ebseg")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule["to"] for rule in policy["egress"])
    return [(rule["to"], sorted({port["port"] for port in rule["ports"]})) for rule in policy["egress"]]


def test_the_service_may_talk_to_what_it_needs_and_nothing_else() -> None:
    """Names, traces, Redis; from an object store, HTTPS and who gives out rights as well."""
    (redis,) = one("gpu", "Service", "ebseg-redis")["spec"]["ports"]
    names, traces, to_redis = ways_out("gpu")
    assert [ports for _, ports in (names, traces, to_redis)] == [[53], [4318], [redis["targetPort"]]]
    selector = one("gpu", "Service", "ebseg-redis")["spec"]["selector"]
    assert to_redis[0] == [{"podSelector": {"matchLabels": selector}}]
    everywhere = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]  # but the node's metadata
    assert ways_out("aks")[3:] == [(everywhere, [443])]
    assert ways_out("eks")[3:] == [(everywhere, [443]), ([{"ipBlock": {"cidr": "169.254.170.23/32"}}], [80])]
    assert ways_out("gke")[2:] == [
        (everywhere, [443]),
        ([{"ipBlock": {"cidr": "169.254.169.254/32"}}], [80]),
        ([{"ipBlock": {"cidr": "169.254.169.252/32"}}], [988]),
    ]
    assert ways_out("external-redis")[2:] == [([{"ipBlock": {"cidr": "10.20.0.0/16"}}], [6380])]


def test_who_may_ask_the_service() -> None:
    """The namespaces of the proxy and of Prometheus; a load balancer of AWS comes from the network itself."""
    (rule,) = one("gpu", "NetworkPolicy", "ebseg")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    (peer,) = rule["from"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["ingress", "monitoring"]
    _, balancer = one("eks", "NetworkPolicy", "ebseg")["spec"]["ingress"]
    assert balancer == {"ports": [{"port": "http", "protocol": "TCP"}]}


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_restricted(folder: str) -> None:
    for name, started in pod_templates(folder):
        spec = started["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            assert container["securityContext"] == RESTRICTED, name
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            _, _, tag = container["image"].partition(":")
            assert re.match(r"\d+\.\d+\.\d+", tag), container["image"]
        assert "hostPath" not in str(spec["volumes"])


def claim_of(pod: dict[str, Any]) -> str:
    """The claim of the one volume of a pod that has one."""
    (name,) = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    ]
    return str(name)


def test_the_publisher_writes_where_the_service_reads() -> None:
    (pod,) = rendered("publisher")
    (stable,) = (one("gpu", "Deployment", "ebseg"),)
    service = pod_spec(stable)
    (claim,) = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"]]
    assert claim == {"claimName": claim_of(service)}
    for name in ("runAsUser", "fsGroup"):
        assert pod["spec"]["securityContext"][name] == service["securityContext"][name]
    assert pod["spec"]["containers"][0]["command"] == ["sleep", str(pod["spec"]["activeDeadlineSeconds"])]
    for values in SETS:
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            for manifest in of_kind(values, kind):
                spec = manifest["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                assert not selects(selector.get("matchLabels", selector), pod["metadata"]["labels"])


@pytest.mark.parametrize("name", ["pull", "batch"])
def test_a_job_shares_the_volume_with_the_service_and_talks_to_the_outside_alone(name: str) -> None:
    job, policy = one(name, "Job", f"ebseg-{name}"), one(name, "NetworkPolicy", f"ebseg-{name}")["spec"]
    pod, service = pod_spec(job), pod_spec(one("gpu", "Deployment", "ebseg"))
    claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "emptyDir" not in volume]
    assert [claim["claimName"] for claim in claims] == [claim_of(service)]
    for name in ("runAsUser", "fsGroup"):
        assert pod["securityContext"][name] == service["securityContext"][name]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert selects(policy["podSelector"]["matchLabels"], labels)
    assert policy["ingress"] == []
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]] == [[53], [443]]
    assert policy["egress"][1]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]  # the node's metadata
    for values in SETS:
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            for manifest in of_kind(values, kind):
                spec = manifest["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                assert not selects(selector.get("matchLabels", selector), labels)
