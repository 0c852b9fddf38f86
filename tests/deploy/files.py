"""What the deployment's tests read: YAML files, and manifests as Helm and `kubectl kustomize` render them."""

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
CHART = K8S / "chart"
EXAMPLES = CHART / "examples"
# Sets of values that the chart is rendered with: files of its examples, later ones over earlier ones.
SETS: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "cpu": ("cpu",),
    "hub": ("hub",),
    "gpu": ("gpu",),
    "keda": ("gpu", "keda"),
    "canary": ("gpu", "canary"),
    "external-redis": ("gpu", "external-redis"),
    "mig": ("gpu", "mig"),
    "time-slicing": ("gpu", "time-slicing"),
    "eks": ("eks",),
    "gke": ("gke",),
    "gke-autopilot": ("gke", "gke-autopilot"),
    "aks": ("aks",),
}
JOBS = ("batch", "kserve", "publisher", "pull", "pull-bucket", "training")
FOLDERS = [*SETS, *JOBS]
NAMESPACE = "ebseg"
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


def helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs helm, and tells of nothing but its remarks on links, which the chart has two of."""
    done = subprocess.run(
        [tool("helm"), *arguments], capture_output=True, text=True, timeout=WAIT, check=False
    )
    lines = [line for line in done.stderr.splitlines() if "found symbolic link in path" not in line]
    done.stderr = "\n".join(lines)
    return done


def helm_template(*arguments: str, release: str = "ebseg") -> "subprocess.CompletedProcess[str]":
    """`helm template` of the chart for the oldest Kubernetes, with arguments such as --set."""
    cluster = ("--namespace", NAMESPACE, "--kube-version", f"{OLDEST}.0")
    return helm("template", release, str(CHART), *cluster, *arguments)


@functools.cache
def rendered(name: str) -> tuple[Manifest, ...]:
    """All manifests of a set of values, or of a kustomization below k8s/; not to be changed."""
    if name in SETS:
        done = helm_template(*(f"--values={EXAMPLES / file}.yaml" for file in SETS[name]))
    else:
        command = [tool("kubectl"), "kustomize", str(K8S / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # such as warnings of fields that will be dropped
    return tuple(manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest)


def of_kind(folder: str, kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [manifest for manifest in rendered(folder) if manifest["kind"] == kind]


def one(folder: str, kind: str, name: str) -> Manifest:
    """The one of that kind and name."""
    (found,) = [found for found in of_kind(folder, kind) if found["metadata"]["name"] == name]
    return found


def pod_spec(manifest: Manifest) -> dict[str, Any]:
    """A copy of the pod's specification of a Deployment, StatefulSet or Job."""
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return {**spec, "containers": [dict(container) for container in spec["containers"]]}


def service_pod(name: str) -> dict[str, Any]:
    """The pod that runs ebseg with a set of values."""
    return pod_spec(one(name, "Deployment", "ebseg"))


def settings_variables(name: str) -> dict[str, str]:
    """Variables of ebseg's container that are written out."""
    (container,) = service_pod(name)["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def on_gpu(name: str) -> bool:
    """Whether a set of values is for GPUs."""
    return SETS[name][:1] not in ((), ("cpu",), ("hub",))


def pod_templates(folder: str) -> list[tuple[str, dict[str, Any]]]:
    """Every pod that is started, with a name for it."""
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
