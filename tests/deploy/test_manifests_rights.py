"""Who may do what: pods' rights, the network, the Secret, the way into the registry's volume."""

import re

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.files import (
    FOLDERS,
    K8S,
    NEWEST,
    OVERLAYS,
    ROOT,
    SERVING,
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


def test_example_secret_fits_and_is_in_no_overlay() -> None:
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(example, NEWEST, strict=True)
    assert [folder for folder in FOLDERS if of_kind(folder, "Secret")] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_keys_of_the_secret(overlay: str) -> None:
    """Those of the example and of the documents' command; the example leaves one out, so no pod takes it."""
    text = (K8S / "secret.example.yaml").read_text(encoding="utf-8")
    example = yaml.safe_load(text)
    asked = re.findall(
        r"secretKeyRef': {'key': '([\w-]+)', 'name': '([\w-]+)'}", str(rendered(f"overlays/{overlay}"))
    )
    assert {name for _, name in asked} == {example["metadata"]["name"]}
    keys = {key for key, _ in asked}
    assert keys == {*example["stringData"], "redis-password"}
    assert "redis-password" not in example["stringData"]
    assert "\n  # redis-password:\n" in text
    document = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = re.findall(r"create secret generic ebseg (.*?)\n```", document, re.DOTALL)
    assert set(re.findall(r"--from-literal=([\w-]+)=", "".join(commands))) == keys


def test_redis_may_be_reached_by_the_service_alone() -> None:
    policy = one("overlays/gpu", "NetworkPolicy", "ebseg-redis")["spec"]
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("overlays/gpu", "ebseg"))
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("overlays/canary", "ebseg-canary"))
    assert "egress" not in policy or policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_the_service_may_talk_to_what_it_needs_and_nothing_else() -> None:
    """Redis, names, traces; from an object store, HTTPS as well. Asked by the proxy and by Prometheus."""
    policy = one("overlays/gpu", "NetworkPolicy", "ebseg")["spec"]
    (redis,) = one("overlays/gpu", "Service", "ebseg-redis")["spec"]["ports"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    outward = [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]]
    assert outward == [[redis["targetPort"]], [53], [4318]]
    assert all(rule["to"] for rule in policy["egress"])
    (to_redis,) = policy["egress"][0]["to"]
    assert to_redis == {
        "podSelector": {"matchLabels": one("overlays/gpu", "Service", "ebseg-redis")["spec"]["selector"]}
    }
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    (peer,) = rule["from"]
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["ingress", "monitoring"]
    bucket = one("overlays/gpu-bucket", "NetworkPolicy", "ebseg")["spec"]
    assert bucket["egress"][:-1] == policy["egress"]
    assert [port["port"] for port in bucket["egress"][-1]["ports"]] == [443]
    assert bucket["egress"][-1]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]  # the node's metadata


@pytest.mark.parametrize("overlay", SERVING)
def test_namespace_asks_for_restricted_pods(overlay: str) -> None:
    (namespace,) = of_kind(f"overlays/{overlay}", "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_restricted(folder: str) -> None:
    for name, template in pod_templates(folder):
        spec = template["spec"]
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


def test_the_publisher_writes_where_the_service_reads() -> None:
    (pod,) = rendered("publisher")
    (stable,) = (one("overlays/gpu", "Deployment", "ebseg"),)
    service = pod_spec(stable)
    (claim,) = [volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"]]
    assert claim == {"claimName": service["volumes"][0]["persistentVolumeClaim"]["claimName"]}
    for name in ("runAsUser", "fsGroup"):
        assert pod["spec"]["securityContext"][name] == service["securityContext"][name]
    assert pod["spec"]["containers"][0]["command"] == ["sleep", str(pod["spec"]["activeDeadlineSeconds"])]
    for overlay in SERVING:
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            for manifest in of_kind(f"overlays/{overlay}", kind):
                spec = manifest["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                assert not selects(selector.get("matchLabels", selector), pod["metadata"]["labels"])


@pytest.mark.parametrize("name", ["pull", "batch"])
def test_a_job_shares_the_volume_with_the_service_and_talks_to_the_outside_alone(name: str) -> None:
    job, policy = one(name, "Job", f"ebseg-{name}"), one(name, "NetworkPolicy", f"ebseg-{name}")["spec"]
    pod, service = pod_spec(job), pod_spec(one("overlays/gpu", "Deployment", "ebseg"))
    claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "emptyDir" not in volume]
    assert [claim["claimName"] for claim in claims] == [
        service["volumes"][0]["persistentVolumeClaim"]["claimName"]
    ]
    for name in ("runAsUser", "fsGroup"):
        assert pod["securityContext"][name] == service["securityContext"][name]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert selects(policy["podSelector"]["matchLabels"], labels)
    assert policy["ingress"] == []
    assert [sorted({port["port"] for port in rule["ports"]}) for rule in policy["egress"]] == [[53], [443]]
    assert policy["egress"][1]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]  # the node's metadata
    for overlay in SERVING:
        for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            for manifest in of_kind(f"overlays/{overlay}", kind):
                spec = manifest["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                assert not selects(selector.get("matchLabels", selector), labels)
