"""Every overlay renders, fits the Kubernetes schemas, and hangs together."""

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.custom_resources import SCHEMAS
from tests.deploy.files import K8S, OVERLAYS, SERVING, Manifest, of_kind, one, pod_spec, rendered, service_pod
from tests.deploy.prometheus_rule import MANIFEST, prometheus_rule

FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), "training"]
OLDEST, NEWEST = (
    "1.31",
    "1.37",
)  # of Kubernetes; matchLabelKeys and sleep in preStop are on by default since then
RESTRICTED = {  # what the namespace's pod security level asks of each container
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_templates(folder: str) -> list[tuple[str, dict[str, Any]]]:
    """Every pod that a kustomization starts, with a name for it."""
    found = []
    for manifest in rendered(folder):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            found.append((manifest["metadata"]["name"], manifest["spec"]["template"]))
        if manifest["kind"] == "PyTorchJob":
            replicas = manifest["spec"]["pytorchReplicaSpecs"]
            found += [(name, replica["template"]) for name, replica in replicas.items()]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_fits_the_schemas(folder: str, version: str) -> None:
    for manifest in rendered(folder):
        if manifest["kind"] in SCHEMAS:
            jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
    for name, template in pod_templates(folder):  # a training job's, too, which its own schema leaves open
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name.lower()},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, version, strict=True)


def test_schemas_notice_a_slip() -> None:
    (job,) = of_kind("training", "PyTorchJob")
    jsonschema.validate(job, SCHEMAS["PyTorchJob"])
    with pytest.raises(jsonschema.ValidationError, match="nprocPerNod"):
        jsonschema.validate({**job, "spec": {**job["spec"], "nprocPerNod": "4"}}, SCHEMAS["PyTorchJob"])
    service = one("overlays/gpu", "Service", "ebseg")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**service, "spec": {"port": 80}}, NEWEST, strict=True)


def test_example_secret_fits_and_is_in_no_overlay() -> None:
    example = yaml.safe_load((K8S / "secret.example.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(example, NEWEST, strict=True)
    assert [folder for folder in FOLDERS if of_kind(folder, "Secret")] == []


def test_every_file_is_used() -> None:
    alone = {"secret.example.yaml", "prometheus-adapter/values.yaml"}
    for path in sorted(K8S.rglob("*.yaml")):
        if path.name == "kustomization.yaml" or str(path.relative_to(K8S)) in alone:
            continue
        assert path.name in (path.parent / "kustomization.yaml").read_text(encoding="utf-8"), path
    used = "".join(path.read_text(encoding="utf-8") for path in K8S.rglob("kustomization.yaml"))
    for path in (K8S / "components").iterdir():
        assert f"components/{path.name}\n" in used


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_is_in_the_namespace(folder: str) -> None:
    places = {
        manifest["metadata"].get("namespace")
        for manifest in rendered(folder)
        if manifest["kind"] != "Namespace"
    }
    assert places == {"ebseg-training" if folder == "training" else "ebseg"}


@pytest.mark.parametrize("overlay", SERVING)
def test_names_that_are_referred_to_exist(overlay: str) -> None:
    folder = f"overlays/{overlay}"
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered(folder)}
    for _, template in pod_templates(folder):
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        claimed = {volume["name"] for volume in spec["volumes"]}
        assert mounted - claimed <= {"data"}  # Redis' own claim
        assert claimed <= mounted
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
    secrets = yaml.safe_load((K8S / "secret.example.yaml").read_text(encoding="utf-8"))
    asked = set(re.findall(r"secretKeyRef': {'key': '([\w-]+)', 'name': 'ebseg'}", str(rendered(folder))))
    assert asked == set(secrets["stringData"])
    assert secrets["metadata"]["name"] == "ebseg"


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("overlay", SERVING)
def test_selectors_find_what_they_are_meant_for(overlay: str) -> None:
    folder = f"overlays/{overlay}"
    labels = {name: template["metadata"]["labels"] for name, template in pod_templates(folder)}
    labels["canary"] = pod_labels("overlays/canary", "ebseg-canary")

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, own in labels.items() if selects(selector, own)}

    assert found(one(folder, "Service", "ebseg")["spec"]["selector"]) == {"ebseg", "canary"}
    assert found(one(folder, "Service", "ebseg-redis")["spec"]["selector"]) == {"ebseg-redis"}
    assert found(one(folder, "Deployment", "ebseg")["spec"]["selector"]["matchLabels"]) == {"ebseg"}
    budget = one(folder, "PodDisruptionBudget", "ebseg")["spec"]
    assert found(budget["selector"]["matchLabels"]) == {"ebseg", "canary"}
    for policy, pods in {"ebseg": {"ebseg", "canary"}, "ebseg-redis": {"ebseg-redis"}}.items():
        assert found(one(folder, "NetworkPolicy", policy)["spec"]["podSelector"]["matchLabels"]) == pods
    for constraint in service_pod(overlay)["topologySpreadConstraints"]:
        assert found(constraint["labelSelector"]["matchLabels"]) == {"ebseg"}
    (monitor,) = of_kind(folder, "ServiceMonitor")
    watched = [
        service["metadata"]["name"]
        for service in of_kind(folder, "Service")
        if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    ]
    assert watched == ["ebseg"]


def pod_labels(folder: str, deployment: str) -> dict[str, str]:
    labels: dict[str, str] = one(folder, "Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
    return labels


def test_redis_may_be_reached_by_the_service_alone() -> None:
    policy = one("overlays/gpu", "NetworkPolicy", "ebseg-redis")["spec"]
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("overlays/gpu", "ebseg"))
    assert selects(peer["podSelector"]["matchLabels"], pod_labels("overlays/canary", "ebseg-canary"))
    assert "egress" not in policy or policy["egress"] == []
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


def test_training_pods_find_their_volumes() -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind("training", "PersistentVolumeClaim")}
    for _, template in pod_templates("training"):
        volumes = template["spec"]["volumes"]
        asked = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
        assert {volume["claimName"] for volume in asked} == claims


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
        for container in spec["containers"]:
            assert container["securityContext"] == RESTRICTED, name
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            _, _, tag = container["image"].partition(":")
            assert re.match(r"\d+\.\d+\.\d+", tag), container["image"]
        assert "hostPath" not in str(spec["volumes"])


def test_a_canary_is_one_pod_more_with_another_image() -> None:
    stable = one("overlays/gpu", "Deployment", "ebseg")
    canary = one("overlays/canary", "Deployment", "ebseg-canary")
    assert {manifest["kind"] for manifest in rendered("overlays/canary")} == {"Deployment", "ConfigMap"}
    assert canary["spec"]["replicas"] == 1
    assert "replicas" not in stable["spec"]  # the autoscaler's
    assert pod_labels("overlays/canary", "ebseg-canary")["ebseg/track"] == "canary"
    images = [pod_spec(manifest)["containers"][0]["image"] for manifest in (stable, canary)]
    assert images[0] != images[1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_surge_fits_the_device(overlay: str) -> None:
    name = "ebseg-canary" if overlay == "canary" else "ebseg"
    rolling = one(f"overlays/{overlay}", "Deployment", name)["spec"]["strategy"]["rollingUpdate"]
    (container,) = service_pod(overlay)["containers"]
    gpus = [container["resources"][kind].get("nvidia.com/gpu") for kind in ("requests", "limits")]
    if overlay == "cpu":
        assert gpus == [None, None]
        assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    else:
        assert gpus == ["1", "1"]
        assert rolling == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "gpu-bucket"])
def test_autoscaler(overlay: str) -> None:
    scaler = one(f"overlays/{overlay}", "HorizontalPodAutoscaler", "ebseg")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "ebseg"
    assert scaler["spec"]["minReplicas"] >= 2
    assert of_kind(f"overlays/{overlay}", "ScaledObject") == []


def test_keda_takes_the_autoscalers_place() -> None:
    scaler = one("overlays/gpu", "HorizontalPodAutoscaler", "ebseg")["spec"]
    (keda,) = of_kind("overlays/gpu-keda", "ScaledObject")
    spec = keda["spec"]
    assert of_kind("overlays/gpu-keda", "HorizontalPodAutoscaler") == []
    assert spec["scaleTargetRef"] == scaler["scaleTargetRef"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        scaler["minReplicas"],
        scaler["maxReplicas"],
    )
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == scaler["behavior"]
    targets = {
        metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"]
        for metric in scaler["metrics"]
    }
    (namespace,) = {manifest["metadata"]["namespace"] for manifest in of_kind("overlays/gpu-keda", "Service")}
    for trigger in spec["triggers"]:
        query = trigger["metadata"]["query"]
        (metric,) = [name for name in targets if name in query]
        assert trigger["metadata"]["threshold"] == targets.pop(metric)
        assert f'namespace="{namespace}"' in query
    assert targets == {}


def test_alerts_are_those_of_docker() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == prometheus_rule(), (
        "run python -m tests.deploy.prometheus_rule"
    )
    (rule,) = of_kind("overlays/gpu", "PrometheusRule")
    names = [entry.get("alert") for group in rule["spec"]["groups"] for entry in group["rules"]]
    assert "EBSegDown" in names


def sizes(manifest: Manifest) -> dict[str, str]:
    return {
        volume["name"]: volume["emptyDir"].get("sizeLimit", "")
        for volume in pod_spec(manifest)["volumes"]
        if "emptyDir" in volume
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scratch_space_is_bounded(overlay: str) -> None:
    name = "ebseg-canary" if overlay == "canary" else "ebseg"
    bounds = sizes(one(f"overlays/{overlay}", "Deployment", name))
    assert "tmp" in bounds
    assert all(re.fullmatch(r"\d+Gi", bound) for bound in bounds.values())
    assert ("versions" in bounds) == (overlay == "gpu-bucket")
