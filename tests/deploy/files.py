"""What the deployment's tests read: YAML files, and manifests as `kubectl kustomize` renders them."""

import functools
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

from service.caches import redis_link, text_cache, write_behind
from service.hot_loading import models
from service.observability import otlp
from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
OVERLAYS = ("cpu", "gpu", "gpu-keda", "gpu-bucket", "canary")
SERVING = ("cpu", "gpu", "gpu-keda", "gpu-bucket")  # overlays that bring everything; canary adds to one
JOBS = ("batch", "publisher", "pull", "pull-bucket", "training")
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), *JOBS]
# Of Kubernetes; matchLabelKeys and sleep in preStop are on by default since the oldest.
OLDEST, NEWEST = "1.31", "1.37"
# What the service may still take once it is drained: a load under way ends, caches are written back and
# closed, traces are sent.
AFTER_DRAIN_S = (
    models.STOP_SECONDS
    + text_cache.STOP_S
    + 2 * write_behind.DRAIN_S
    + 2 * redis_link.CLOSE_S
    + 2 * otlp.STOP_S
)
Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Path of a program: the environment's own, where a Python package brings it, else the system's."""
    own = Path(sys.executable).with_name(name)
    found = str(own) if own.exists() else shutil.which(name)
    assert found is not None, f"{name} is not installed; `make setup tools` installs it"
    return found


def read_yaml(path: Path) -> Any:
    """The file's one document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@functools.cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    """All manifests of a kustomization below k8s/, such as "overlays/gpu"; not to be changed."""
    command = [tool("kubectl"), "kustomize", str(K8S / folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # such as warnings of fields that kustomize will drop
    return tuple(manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest)


def of_kind(folder: str, kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [manifest for manifest in rendered(folder) if manifest["kind"] == kind]


def one(folder: str, kind: str, name: str) -> Manifest:
    """The one of that kind and name."""
    (found,) = [found for found in of_kind(folder, kind) if found["metadata"]["name"] == name]
    return found


def pod_spec(manifest: Manifest) -> dict[str, Any]:
    """The pod's specification of a Deployment, StatefulSet or Job."""
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def service_pod(overlay: str) -> dict[str, Any]:
    """The pod that runs ebseg in an overlay."""
    name = "ebseg-canary" if overlay == "canary" else "ebseg"
    return pod_spec(one(f"overlays/{overlay}", "Deployment", name))


def settings_variables(overlay: str) -> dict[str, str]:
    """Variables of ebseg's container that are written out: the ConfigMap's, then the container's own."""
    (container,) = service_pod(overlay)["containers"]
    values: dict[str, str] = {}
    for source in container["envFrom"]:
        (found,) = [
            manifest
            for manifest in of_kind(f"overlays/{overlay}", "ConfigMap")
            if manifest["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        values |= found["data"]
    return values | {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def pod_templates(folder: str) -> list[tuple[str, dict[str, Any]]]:
    """Every pod that a kustomization starts, with a name for it."""
    found = []
    for manifest in rendered(folder):
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job"):
            found.append((manifest["metadata"]["name"], manifest["spec"]["template"]))
        if manifest["kind"] == "Pod":
            found.append((manifest["metadata"]["name"], manifest))
        if manifest["kind"] == "PyTorchJob":
            replicas = manifest["spec"]["pytorchReplicaSpecs"]
            found += [(name, replica["template"]) for name, replica in replicas.items()]
    return found


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether labels are those that a selector asks for."""
    return selector.items() <= labels.items()


def pod_labels(folder: str, deployment: str) -> dict[str, str]:
    """Labels of the pods of a Deployment."""
    labels: dict[str, str] = one(folder, "Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
    return labels
