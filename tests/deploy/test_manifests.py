"""Every overlay renders, fits the Kubernetes schemas, and hangs together."""

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.custom_resources import SCHEMAS
from tests.deploy.files import (
    FOLDERS,
    K8S,
    NEWEST,
    OLDEST,
    OVERLAYS,
    SERVING,
    VERSION,
    Manifest,
    of_kind,
    one,
    pod_labels,
    pod_spec,
    pod_templates,
    rendered,
    selects,
    service_pod,
)
from tests.deploy.prometheus_rule import MANIFEST, prometheus_rule


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


def test_scaling_asks_the_prometheus_that_scrapes() -> None:
    adapter = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text(encoding="utf-8"))
    address = f"{adapter['prometheus']['url']}:{adapter['prometheus']['port']}"
    (keda,) = of_kind("overlays/gpu-keda", "ScaledObject")
    assert {trigger["metadata"]["serverAddress"] for trigger in keda["spec"]["triggers"]} == {address}
    assert address == "http://prometheus-operated.monitoring:9090"  # the namespace that may ask the pods


def test_a_budget_never_blocks_a_drain() -> None:
    for overlay in SERVING:
        budget = one(f"overlays/{overlay}", "PodDisruptionBudget", "ebseg")["spec"]
        assert (budget["maxUnavailable"], "minAvailable" in budget) == (1, False)


def test_training_pods_find_their_volumes() -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind("training", "PersistentVolumeClaim")}
    for _, template in pod_templates("training"):
        volumes = template["spec"]["volumes"]
        asked = [volume["persistentVolumeClaim"] for volume in volumes if "persistentVolumeClaim" in volume]
        assert {volume["claimName"] for volume in asked} == claims


def test_a_canary_is_one_pod_more_with_another_image() -> None:
    stable = one("overlays/gpu", "Deployment", "ebseg")
    canary = one("overlays/canary", "Deployment", "ebseg-canary")
    assert {manifest["kind"] for manifest in rendered("overlays/canary")} == {"Deployment", "ConfigMap"}
    assert canary["spec"]["replicas"] == 1
    assert "replicas" not in stable["spec"]  # the autoscaler's
    assert pod_labels("overlays/canary", "ebseg-canary")["ebseg/track"] == "canary"
    old, new = pod_spec(stable), pod_spec(canary)
    assert old["containers"][0]["image"] != new["containers"][0]["image"]
    assert (new["serviceAccountName"], new["volumes"]) == (old["serviceAccountName"], old["volumes"])


@pytest.mark.parametrize("overlay", SERVING)
def test_image_is_of_this_version(overlay: str) -> None:
    (container,) = service_pod(overlay)["containers"]
    assert container["image"] == f"ebseg:{VERSION}-{'cpu' if overlay == 'cpu' else 'cuda'}"
    for _, template in pod_templates("training"):
        assert template["spec"]["containers"][0]["image"] == f"ebseg-training:{VERSION}"


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
    assert ("versions" in bounds) == (overlay == "gpu-bucket")
    (container,) = service_pod(overlay)["containers"]
    limit = container["resources"]["limits"]["ephemeral-storage"]
    assert sum(int(bound.removesuffix("Gi")) for bound in bounds.values()) < int(limit.removesuffix("Gi"))
