"""Numbers of docs/operations.md that are also in the manifests and the code."""

import re

from service.caches.text_cache import ENTRY_BYTES
from service.settings import Settings
from tests.deploy.figures import WIDTH
from tests.deploy.files import (
    AFTER_DRAIN_S,
    EXAMPLES,
    NEWEST,
    OLDEST,
    ROOT,
    SETS,
    of_kind,
    one,
    read_yaml,
    service_pod,
    settings_variables,
)

TEXT = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split())


def defaults(name: str) -> int:
    return int(Settings.model_fields[name].default)


def test_grace_period() -> None:
    for values in SETS:
        spec = service_pod(values)
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = settings_variables(values)["EBSEG_DRAIN_TIMEOUT_S"]
        grace = spec["terminationGracePeriodSeconds"]
        for written in (
            f"A grace period of {grace} s: {pause} s until proxies have noticed, {drain} s",
            f"at most {AFTER_DRAIN_S:.0f} s for a load under way",
        ):
            assert written in TEXT


def test_limits_and_scaling() -> None:
    for values, kind in {"cpu": "CPU", "gpu": "GPU"}.items():
        (container,) = service_pod(values)["containers"]
        memory = container["resources"]["limits"]["memory"].replace("Gi", " GiB")
        assert re.search(rf"`{values}` has {memory}[,.]", TEXT)
        (metric,) = one(values, "HorizontalPodAutoscaler", "ebseg")["spec"]["metrics"]
        assert f"{kind} pods: more than {metric['pods']['target']['averageValue']} s" in TEXT
        assert f"`{metric['pods']['metric']['name']}`" in TEXT
    scaler = one("gpu", "HorizontalPodAutoscaler", "ebseg")["spec"]
    assert f"(`autoscaling.maxReplicas` is {scaler['maxReplicas']})" in TEXT
    requests = service_pod("gpu")["containers"][0]["resources"]["requests"]
    assert f"asks for {requests['cpu']} cores and {requests['memory'].removesuffix('Gi')} GiB" in TEXT


def test_sets_of_values() -> None:
    (table,) = re.findall(r"has whole sets: (.*?) A set \"over another\"", TEXT)
    written = {
        name for cell in re.findall(r"\| ((?:`[\w-]+`(?:, )?)+) \|", table) for name in cell.split(", ")
    }
    assert written == {f"`{path.stem}`" for path in EXAMPLES.iterdir()}
    folders = {path.parent.name for path in (ROOT / "k8s").glob("*/kustomization.yaml")}
    (sentence,) = re.findall(r"Kustomizations in `k8s` do the rest: (.*?)\.[ \n][^m]", TEXT)
    assert {*re.findall(r"`([\w-]+)`", sentence)} == folders
    assert "driver 580 or newer" in TEXT
    locked = (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8")
    (cuda,) = re.findall(r"(?m)^cuda-toolkit==(\d+\.\d+)", locked)
    assert f"The images bring CUDA {cuda}." in TEXT


def test_redis() -> None:
    (config,) = [found for found in of_kind("gpu", "ConfigMap") if "redis.conf" in found["data"]]
    (megabytes,) = re.findall(r"(?m)^maxmemory (\d+)mb$", config["data"]["redis.conf"])
    (names,) = re.findall(rf"{megabytes} MB hold ([\d,]+) class names", TEXT)
    (kilobytes,) = re.findall(r"a class name in Redis; in the process \| ([\d.]+) kB; ", TEXT)
    assert int(names.replace(",", "")) == round(int(megabytes) * 1000 / float(kilobytes), -4)
    assert f"; {(4 * WIDTH + ENTRY_BYTES) / 1000:.2f} kB |" in TEXT


def test_ports_and_versions() -> None:
    for service in read_yaml(ROOT / "docker-compose.yml")["services"].values():
        for port in service.get("ports", []):
            published = port.split(":")[-1]
            assert f"({published})" in TEXT or f"(port {published})" in TEXT
    assert f"Kubernetes {OLDEST} or newer" in TEXT
    assert f"the Kubernetes schemas ({OLDEST} and {NEWEST})" in TEXT
    assert f"waits `max_timeout_ms` ({defaults('max_timeout_ms') // 1000} s)" in TEXT
    assert f"bodies of `max_bytes` ({defaults('max_bytes') >> 20} MiB)" in TEXT
    assert f"`watchdog_s` ({defaults('watchdog_s')} s)" in TEXT
