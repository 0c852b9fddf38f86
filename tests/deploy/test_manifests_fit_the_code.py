"""What the manifests say of the service, held against it: ports, probes, settings, times, metrics."""

import json
import re
from urllib.parse import urlsplit

import httpx
import pytest

import ebseg
from model.released.known import RELEASED
from service.app import create_app
from service.observability.metrics import Metrics
from service.settings import Settings, load_settings
from tests.deploy.files import (
    AFTER_DRAIN_S,
    K8S,
    SETS,
    of_kind,
    on_gpu,
    one,
    read_yaml,
    service_pod,
    settings_variables,
)
from tests.deploy.names import metric_names, unknown_metrics
from tests.service.fakes import FakeEngine
from tests.waiting import until

PASSWORD = "ab12"
ADAPTER = K8S / "prometheus-adapter" / "values.yaml"


def settings_of(values: str) -> Settings:
    """The service's settings in a pod of the values, with the example Secret's values and a password."""
    secret = {**read_yaml(K8S / "secret.example.yaml")["stringData"], "redis-password": PASSWORD}
    variables = settings_variables(values)
    (container,) = service_pod(values)["containers"]
    for entry in container["env"]:
        if "secretKeyRef" in entry.get("valueFrom", {}):
            variables[entry["name"]] = secret[entry["valueFrom"]["secretKeyRef"]["key"]]
    known = re.compile(r"\$\((\w+)\)")
    expanded = {
        name: known.sub(lambda match: variables[match[1]], value) for name, value in variables.items()
    }
    own = {name: value for name, value in expanded.items() if name.startswith("EBSEG_")}
    assert set(own) <= {f"EBSEG_{name.upper()}" for name in Settings.model_fields}
    return load_settings({name.removeprefix("EBSEG_").lower(): value for name, value in own.items()})


@pytest.mark.parametrize("values", SETS)
def test_settings(values: str) -> None:
    settings = settings_of(values)
    (container,) = service_pod(values)["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [settings.port]
    assert settings.host == "0.0.0.0"
    assert settings.device == ("cuda" if on_gpu(values) else "cpu")
    keys = 0 if values in ("defaults", "hub") else 1
    assert len(settings.api_keys) == len(settings.admin_keys) == keys
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts["/tmp"] is False
    assert settings.model == (None if values == "defaults" else "ebseg-base")
    if values == "defaults":
        assert settings.registry is None
    elif "/fetched" in mounts and values != "hub":
        assert urlsplit(str(settings.registry)).scheme == {"eks": "s3", "aks": "az"}.get(values, "gs")
        assert mounts[str(settings.cache_dir)] is False
    elif values != "hub":
        assert mounts[str(settings.registry)] is True
    assert hasattr(ebseg.build_parser().parse_args(container["args"]), "print_config")  # `ebseg serve`


@pytest.mark.parametrize("values", SETS)
def test_redis_that_is_asked_for(values: str) -> None:
    settings = settings_of(values)
    if values in ("defaults", "hub", "gke", "gke-autopilot"):
        assert settings.redis_url is None
        return
    assert settings.redis_url is not None
    url = urlsplit(settings.redis_url.get_secret_value())
    assert url.password == PASSWORD
    if values == "external-redis":
        assert (url.scheme, url.hostname, url.port) == ("rediss", "redis.example.com", 6380)
    else:
        redis = one(values, "Service", "ebseg-redis")
        assert (url.hostname, url.port) == (redis["metadata"]["name"], redis["spec"]["ports"][0]["port"])


def test_a_pull_writes_what_the_pod_serves() -> None:
    pod = service_pod("hub")
    (pull,) = pod["initContainers"]
    args = ebseg.build_parser().parse_args(pull["args"])
    settings, model = settings_of("hub"), RELEASED[args.source]
    assert (str(args.registry), model.checkpoint) == (settings.registry, settings.model)
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "fetched"]
    # the downloaded file and the checkpoint made of it, both float32
    assert 8 * model.parameters < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30
    for container in (pull, *pod["containers"]):
        assert {"name": "fetched", "mountPath": "/fetched"} in container["volumeMounts"]
    assert args.registry.is_relative_to("/fetched")
    assert {"name": "HF_HOME", "value": "/fetched/cache"} in pull["env"]


def test_a_service_of_our_name_would_set_the_port() -> None:
    """Why enableServiceLinks is off: Kubernetes would put its variable in the place of one of ours.

    The service ignores it, and would listen on its usual port.
    """
    name = one("gpu", "Service", "ebseg")["metadata"]["name"]
    linked = f"{name}_port".upper()
    assert linked.removeprefix("EBSEG_").lower() in Settings.model_fields
    for values in SETS:
        assert service_pod(values)["enableServiceLinks"] is False


@pytest.mark.anyio
@pytest.mark.parametrize("values", SETS)
async def test_probes(values: str) -> None:
    (container,) = service_pod(values)["containers"]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert paths == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {container["ports"][0]["name"]}
    settings = settings_of(values).model_copy(
        update={"device": "cpu", "redis_url": None, "registry": None, "model": None}
    )
    app = create_app(settings, FakeEngine())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod") as client,
    ):
        await until(lambda: app.state.service.state == "ready")
        for path in [*paths.values(), "/metrics"]:  # no probe has a key
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/v1/models")).status_code == (401 if settings.api_keys else 200)
    startup = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    assert startup >= 600
    assert one(values, "Deployment", "ebseg")["spec"]["progressDeadlineSeconds"] > startup


@pytest.mark.parametrize("values", SETS)
def test_grace_period_is_longer_than_the_drain(values: str) -> None:
    spec = service_pod(values)
    settings = settings_of(values)
    (container,) = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    assert spec["terminationGracePeriodSeconds"] > pause + settings.drain_timeout_s + AFTER_DRAIN_S
    assert pause >= readiness["periodSeconds"] * readiness["failureThreshold"]
    # a request that names no time of its own, and is taken in the last moment, can still be answered
    assert settings.drain_timeout_s * 1000 >= settings.timeout_ms


@pytest.mark.parametrize("values", SETS)
def test_threads_follow_the_pods_cores(values: str) -> None:
    (container,) = service_pod(values)["containers"]
    (threads,) = [entry for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS"]
    limits, requests = (container["resources"][kind] for kind in ("limits", "requests"))
    # the field of a limit that is not set would be all of the node's cores
    kind = "limits" if "cpu" in limits else "requests"
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == f"{kind}.cpu"
    cores = container["resources"][kind]["cpu"]
    assert cores.isdigit()  # whole ones
    decoding = settings_of(values).decode_threads
    assert decoding is not None
    assert decoding <= int(cores)
    if values == "cpu":
        assert limits["cpu"] == requests["cpu"]


@pytest.mark.parametrize("values", SETS)
def test_memory_holds_what_the_settings_allow(values: str) -> None:
    """The sum that docs/operations.md works out: bytes at the worst moment, against the limit."""
    settings = settings_of(values)
    (container,) = service_pod(values)["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    # EBSeg-B in float32, and what a large request adds, PyTorch itself included; and of EBSeg-tiny
    weights, peak = (1.0e9, 1.4e9) if settings.model else (0.02e9, 0.9e9)
    peak += 3.0e9 if on_gpu(values) else 0  # CUDA
    bodies = settings.max_pending * settings.max_bytes
    assert settings.decode_threads is not None  # a limit of processor time is not seen as fewer cores
    decoding = settings.decode_threads * 3 * settings.max_pixels
    prepared = min(settings.max_pending_pixels, settings.max_pending * 640 * 853) * 3 * 4
    caches = settings.text_cache_bytes + settings.prediction_cache_bytes
    assert 2 * weights + peak + bodies + decoding + prepared + caches < limit


@pytest.mark.parametrize("values", SETS)
def test_metrics_that_scaling_and_scraping_name(values: str) -> None:
    known = metric_names(Metrics())
    adapter = {rule["name"]["as"]: rule for rule in read_yaml(ADAPTER)["rules"]["custom"]}
    for scaler in of_kind(values, "HorizontalPodAutoscaler"):
        asked = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
        # Google's adapter has names of its own
        asked = [name.removeprefix("prometheus.googleapis.com|").removesuffix("|gauge") for name in asked]
        assert set(asked) == set(adapter) <= known
    for scaled in of_kind(values, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            assert unknown_metrics(trigger["metadata"]["query"]) == set()
    for rule in adapter.values():
        assert unknown_metrics(rule["seriesQuery"]) == set()
    service = one(values, "Service", "ebseg")
    (port,) = service["spec"]["ports"]
    (container,) = service_pod(values)["containers"]
    assert port["targetPort"] == container["ports"][0]["name"]
    for monitor in of_kind(values, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
        assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "ebseg"
    for monitor in of_kind(values, "PodMonitoring"):
        (endpoint,) = monitor["spec"]["endpoints"]
        assert (endpoint["port"], endpoint["path"]) == (container["ports"][0]["name"], "/metrics")
        assert monitor["metadata"]["name"] == "ebseg"  # Google's job label


@pytest.mark.parametrize(("values", "kind"), [("eks", "alb"), ("gke", "gateway"), ("aks", "nginx")])
def test_a_proxy_allows_what_the_service_allows(values: str, kind: str) -> None:
    """Bodies of max_bytes, and a little more than max_timeout_ms; not the metrics."""
    settings = settings_of(values)
    seconds = settings.max_timeout_ms // 1000 + 5
    if kind == "gateway":
        (route,) = of_kind(values, "HTTPRoute")
        hidden, shown = route["spec"]["rules"]
        assert shown["timeouts"] == {"request": f"{seconds}s"}
        assert [match["path"]["value"] for match in hidden["matches"]] == ["/metrics"]
        assert "backendRefs" not in hidden
        return
    notes = one(values, "Ingress", "ebseg")["metadata"]["annotations"]
    notes = {name.split("/")[1]: value for name, value in notes.items()}
    if kind == "nginx":
        assert int(notes["proxy-body-size"]) == settings.max_bytes
        assert {int(notes[f"proxy-{way}-timeout"]) for way in ("read", "send")} == {seconds}
        metrics = one(values, "Ingress", "ebseg-metrics")
        (path,) = metrics["spec"]["rules"][0]["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/metrics", "Exact")
        (denied,) = metrics["metadata"]["annotations"].values()
        assert denied == "0.0.0.0/0,::/0"
    else:
        assert notes["load-balancer-attributes"] == f"idle_timeout.timeout_seconds={seconds}"
        assert notes["healthcheck-path"] == "/readyz"
        path, _ = one(values, "Ingress", "ebseg")["spec"]["rules"][0]["http"]["paths"]
        assert path["path"] == "/metrics"
        action = f"actions.{path['backend']['service']['name']}"
        assert json.loads(notes[action])["fixedResponseConfig"]["statusCode"] == "404"


def test_redis_keeps_vocabularies() -> None:
    """Only keys with a time to live may be thrown away; docs/http.md asks for it."""
    (config,) = [found for found in of_kind("gpu", "ConfigMap") if "redis.conf" in found["data"]]
    lines = dict(
        line.split(" ", 1) for line in config["data"]["redis.conf"].splitlines() if line and line[0] != "#"
    )
    assert lines["maxmemory-policy"].startswith("volatile-")
    assert lines["appendonly"] == "yes"
    megabytes = int(lines["maxmemory"].removesuffix("mb"))
    (redis,) = one("gpu", "StatefulSet", "ebseg-redis")["spec"]["template"]["spec"]["containers"]
    assert int(redis["resources"]["limits"]["memory"].removesuffix("Mi")) >= 2 * megabytes
