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
            f"stops taking requests after {pause} s, answers what it has, and leaves within {grace} s",
        ):
            assert written in TEXT


def test_limits_and_scaling() -> None:
    for values, kind in {"cpu": "CPU", "gpu": "GPU"}.items():
        (container,) = service_pod(values)["containers"]
        memory = container["resources"]["limits"]["memory"].replace("Gi", " GiB")
        (row,) = re.findall(r"\| sum; limit \| ([^|]+) \| ([^|]+) \|", TEXT)
        assert row[kind == "GPU"].strip().endswith(memory)
        pending = settings_variables(values)["EBSEG_MAX_PENDING"]
        assert f"{pending} x 21 MB" in TEXT
        (metric,) = one(values, "HorizontalPodAutoscaler", "ebseg")["spec"]["metrics"]
        assert f"{kind} pods: more than {metric['pods']['target']['averageValue']} s" in TEXT
        assert f"`{metric['pods']['metric']['name']}`" in TEXT
    scaler = one("gpu", "HorizontalPodAutoscaler", "ebseg")["spec"]
    assert f"(`autoscaling.maxReplicas` is {scaler['maxReplicas']})" in TEXT
    requests = service_pod("gpu")["containers"][0]["resources"]["requests"]
    assert f"asks for {requests['cpu']} cores and {requests['memory'].removesuffix('Gi')} GiB" in TEXT


def test_sets_of_values() -> None:
    (table,) = re.findall(r"has whole sets: (.*?) \"Over another\"", TEXT)
    written = {
        name for cell in re.findall(r"\| ((?:`[\w-]+`(?:, )?)+) \|", table) for name in cell.split(", ")
    }
    assert written == {f"`{path.stem}`" for path in EXAMPLES.iterdir()}
    assert "driver 580 or newer" in TEXT
    locked = (ROOT / "requirements" / "torch.txt").read_text(encoding="utf-8")
    (cuda,) = re.findall(r"(?m)^cuda-toolkit==(\d+\.\d+)", locked)
    assert f"The images bring CUDA {cuda}." in TEXT


def test_redis_and_caches() -> None:
    (config,) = [found for found in of_kind("gpu", "ConfigMap") if "redis.conf" in found["data"]]
    (megabytes,) = re.findall(r"(?m)^maxmemory (\d+)mb$", config["data"]["redis.conf"])
    assert f"**Redis.** {megabytes} MB hold" in TEXT
    kept = defaults("text_cache_bytes")
    entry = 4 * WIDTH + ENTRY_BYTES
    written = f"the {kept >> 20} MiB in each process {kept / 1e6:.0f} MB / {entry / 1000:.2f} kB = "
    (count,) = re.findall(re.escape(written) + r"([\d,]+)", TEXT)
    assert abs(int(count.replace(",", "")) - kept / entry) < 500


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
