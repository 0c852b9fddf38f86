"""What the manifests say of the service, held against it: ports, probes, settings, times, metrics."""

import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import ebseg
from model.released.known import RELEASED
from service.app import create_app
from service.batch.plan import share
from service.commands.batch import command as batch_command
from service.commands.complaint import UNUSABLE
from service.observability.metrics import Metrics
from service.settings import Settings, load_settings
from tests.deploy.files import (
    AFTER_DRAIN_S,
    K8S,
    OVERLAYS,
    SERVING,
    VERSION,
    of_kind,
    one,
    read_yaml,
    rendered,
    service_pod,
    settings_variables,
)
from tests.deploy.names import metric_names, unknown_metrics
from tests.service.fakes import FakeEngine
from tests.waiting import until
from training.commands.train import config_of

PASSWORD = "ab12"
ADAPTER = K8S / "prometheus-adapter" / "values.yaml"


def settings_of(overlay: str) -> Settings:
    """The service's settings in a pod of the overlay, with the example Secret's values and a password."""
    secret = {**read_yaml(K8S / "secret.example.yaml")["stringData"], "redis-password": PASSWORD}
    variables = settings_variables(overlay)
    (container,) = service_pod(overlay)["containers"]
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


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings(overlay: str) -> None:
    settings = settings_of(overlay)
    (container,) = service_pod(overlay)["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [settings.port]
    assert settings.host == "0.0.0.0"
    assert settings.device == ("cpu" if overlay == "cpu" else "cuda")
    assert len(settings.api_keys) == len(settings.admin_keys) == 1
    assert settings.redis_url is not None
    redis = one(f"overlays/{'gpu' if overlay == 'canary' else overlay}", "Service", "ebseg-redis")
    url = urlsplit(settings.redis_url.get_secret_value())
    assert (url.hostname, url.port) == (redis["metadata"]["name"], redis["spec"]["ports"][0]["port"])
    assert url.password == PASSWORD
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    if overlay == "gpu-bucket":
        assert str(settings.registry).startswith("s3://")
        assert mounts[str(settings.cache_dir)] is False
    else:
        assert mounts[str(settings.registry)] is True
    assert mounts["/tmp"] is False
    assert hasattr(ebseg.build_parser().parse_args(container["args"]), "print_config")  # `ebseg serve`


def test_a_service_of_our_name_would_set_the_port() -> None:
    """Why enableServiceLinks is off: Kubernetes would put its variable in the place of one of ours.

    The service ignores it, and would listen on its usual port.
    """
    name = one("overlays/gpu", "Service", "ebseg")["metadata"]["name"]
    linked = f"{name}_port".upper()
    assert linked.removeprefix("EBSEG_").lower() in Settings.model_fields
    for overlay in OVERLAYS:
        assert service_pod(overlay)["enableServiceLinks"] is False


@pytest.mark.anyio
@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_probes(overlay: str) -> None:
    (container,) = service_pod(overlay)["containers"]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
    assert paths == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {container["ports"][0]["name"]}
    settings = settings_of(overlay).model_copy(
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
        assert (await client.get("/v1/models")).status_code == 401
    startup = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    assert startup >= 600
    name = "ebseg-canary" if overlay == "canary" else "ebseg"
    assert one(f"overlays/{overlay}", "Deployment", name)["spec"]["progressDeadlineSeconds"] > startup


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_grace_period_is_longer_than_the_drain(overlay: str) -> None:
    spec = service_pod(overlay)
    settings = settings_of(overlay)
    (container,) = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    assert spec["terminationGracePeriodSeconds"] > pause + settings.drain_timeout_s + AFTER_DRAIN_S
    assert pause >= readiness["periodSeconds"] * readiness["failureThreshold"]
    # a request that names no time of its own, and is taken in the last moment, can still be answered
    assert settings.drain_timeout_s * 1000 >= settings.timeout_ms


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_threads_follow_the_pods_cores(overlay: str) -> None:
    (container,) = service_pod(overlay)["containers"]
    (threads,) = [entry for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS"]
    assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "requests.cpu"
    cores = container["resources"]["requests"]["cpu"]
    assert cores.isdigit()  # whole ones
    if overlay == "cpu":
        assert container["resources"]["limits"]["cpu"] == cores
    else:
        assert "cpu" not in container["resources"]["limits"]
        decoding = settings_of(overlay).decode_threads
        assert decoding is not None
        assert decoding <= int(cores)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_memory_holds_what_the_settings_allow(overlay: str) -> None:
    """The sum that docs/operations.md works out: bytes at the worst moment, against the limit."""
    settings = settings_of(overlay)
    (container,) = service_pod(overlay)["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    weights, peak = 1.0e9, 1.4e9  # EBSeg-B in float32, and what a large request adds, PyTorch itself included
    bodies = settings.max_pending * settings.max_bytes
    assert settings.decode_threads is not None  # a limit of processor time is not seen as fewer cores
    decoding = settings.decode_threads * 3 * settings.max_pixels
    prepared = min(settings.max_pending_pixels, settings.max_pending * 640 * 853) * 3 * 4
    caches = settings.text_cache_bytes + settings.prediction_cache_bytes
    assert 2 * weights + peak + bodies + decoding + prepared + caches < limit


@pytest.mark.parametrize("overlay", SERVING)
def test_metrics_that_scaling_and_scraping_name(overlay: str) -> None:
    folder = f"overlays/{overlay}"
    known = metric_names(Metrics())
    adapter = {rule["name"]["as"]: rule for rule in read_yaml(ADAPTER)["rules"]["custom"]}
    for scaler in of_kind(folder, "HorizontalPodAutoscaler"):
        asked = [metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
        assert set(asked) == set(adapter) <= known
    for scaled in of_kind(folder, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            assert unknown_metrics(trigger["metadata"]["query"]) == set()
    for rule in adapter.values():
        assert unknown_metrics(rule["seriesQuery"]) == set()
    (monitor,) = of_kind(folder, "ServiceMonitor")
    service = one(folder, "Service", "ebseg")
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    (container,) = service_pod(overlay)["containers"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] == container["ports"][0]["name"]
    assert endpoint["path"] == "/metrics"
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "ebseg"


def test_redis_keeps_vocabularies() -> None:
    """Only keys with a time to live may be thrown away; docs/http.md asks for it."""
    (config,) = [found for found in of_kind("overlays/gpu", "ConfigMap") if "redis.conf" in found["data"]]
    lines = dict(
        line.split(" ", 1) for line in config["data"]["redis.conf"].splitlines() if line and line[0] != "#"
    )
    assert lines["maxmemory-policy"].startswith("volatile-")
    assert lines["appendonly"] == "yes"
    megabytes = int(lines["maxmemory"].removesuffix("mb"))
    (redis,) = one("overlays/gpu", "StatefulSet", "ebseg-redis")["spec"]["template"]["spec"]["containers"]
    assert int(redis["resources"]["limits"]["memory"].removesuffix("Mi")) >= 2 * megabytes


def training_job() -> dict[str, Any]:
    (job,) = of_kind("training", "PyTorchJob")
    spec: dict[str, Any] = job["spec"]
    return spec


def test_training_command_is_one_that_ebseg_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.run import parse_args

    spec = training_job()
    replicas = spec["pytorchReplicaSpecs"]
    nodes = sum(replica["replicas"] for replica in replicas.values())
    for name, value in {
        "NNODES": str(nodes),
        "NPROC_PER_NODE": spec["nprocPerNode"],
        "MASTER_ADDR": "first",
    }.items():
        monkeypatch.setenv(f"PET_{name}", value)  # as the operator does
    for replica in replicas.values():
        (container,) = replica["template"]["spec"]["containers"]
        assert container["command"] == ["torchrun"]
        launched = parse_args(container["args"])
        assert (launched.nnodes, launched.master_addr) == (str(nodes), "first")
        assert (launched.module, launched.training_script) == (True, "ebseg")
        assert container["resources"]["limits"]["nvidia.com/gpu"] == launched.nproc_per_node
        args = ebseg.build_parser().parse_args(launched.training_script_args)
        config = config_of(args)
        assert config.batch % (nodes * int(launched.nproc_per_node) * config.accumulate) == 0
        mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert mounts[f"/{args.folder.parts[1]}"] is False
        for path in (config.data, config.init):
            assert mounts[f"/{str(path).split('/')[1]}"] is True


def test_training_goes_on_after_a_restart() -> None:
    for replica in training_job()["pytorchReplicaSpecs"].values():
        assert replica["restartPolicy"] == "OnFailure"
        assert "--fresh" not in replica["template"]["spec"]["containers"][0]["args"]


def test_no_manifest_names_a_variable_that_is_unknown() -> None:
    known = {f"EBSEG_{name.upper()}" for name in Settings.model_fields}
    for overlay in OVERLAYS:
        assert set(re.findall(r"EBSEG_[A-Z_]+", str(rendered(f"overlays/{overlay}")))) <= known


def test_pull_command_is_one_that_ebseg_takes() -> None:
    """It writes what the service serves, from a cache that a restarted container finds again."""
    job = one("pull", "Job", "ebseg-pull")["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    args = ebseg.build_parser().parse_args(container["args"])
    model = RELEASED[args.source]
    variables = settings_variables("gpu")
    assert str(args.registry) == variables["EBSEG_REGISTRY"]
    assert model.checkpoint == variables["EBSEG_MODEL"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[str(args.registry)] == "registry"
    (home,) = [entry["value"] for entry in container["env"] if entry["name"] == "HF_HOME"]
    assert mounts[home] == "cache"
    assert pod["restartPolicy"] == "OnFailure"  # the pod's own folders stay
    bounds = [
        int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        for volume in pod["volumes"]
        if "emptyDir" in volume
    ]
    assert sum(bounds) < int(container["resources"]["limits"]["ephemeral-storage"].removesuffix("Gi"))
    assert 4 * model.parameters < bounds[0] << 30
    assert job["ttlSecondsAfterFinished"] > 0
    assert container["image"] == f"ebseg:{VERSION}-cpu"


def test_pull_to_a_bucket_publishes_what_it_fetched() -> None:
    pod = one("pull-bucket", "Job", "ebseg-pull")["spec"]["template"]["spec"]
    (fetch,), (publish,) = pod["initContainers"], pod["containers"]
    (plain,) = one("pull", "Job", "ebseg-pull")["spec"]["template"]["spec"]["containers"]
    for key in ("image", "args", "env", "envFrom", "volumeMounts", "securityContext"):
        assert fetch[key] == plain[key]
    fetched = ebseg.build_parser().parse_args(fetch["args"])
    args = ebseg.build_parser().parse_args(publish["args"])
    model = RELEASED[fetched.source].checkpoint
    variables = settings_variables("gpu-bucket")
    assert args.source == fetched.registry / model / "1"
    assert args.destination == f"{variables['EBSEG_REGISTRY']}/{variables['EBSEG_MODEL']}"
    assert args.force
    assert publish["volumeMounts"] == fetch["volumeMounts"]
    assert all("emptyDir" in volume for volume in pod["volumes"])
    accounts = [account["metadata"]["name"] for account in of_kind("pull-bucket", "ServiceAccount")]
    assert accounts == [pod["serviceAccountName"]]
    (training,) = {
        container["image"]
        for replica in training_job()["pytorchReplicaSpecs"].values()
        for container in replica["template"]["spec"]["containers"]
    }
    assert publish["image"] == training  # which has the packages


def test_the_batch_job_runs_all_shares() -> None:
    """Each index has its share, and exit codes mean to Kubernetes what they mean to ebseg."""
    job = one("batch", "Job", "ebseg-batch")["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    args = ebseg.build_parser().parse_args(container["args"])
    assert args.run is batch_command.run
    assert job["completionMode"] == "Indexed"
    assert args.shard == f"/{job['completions']}"
    assert job["parallelism"] <= job["completions"]
    for index in (0, job["completions"] - 1):
        assert share(f"{index}{args.shard}") == (index, job["completions"])
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"] == {"operator": "In", "values": [UNUSABLE]}
    assert rules["Ignore"]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert args.tolerate_errors  # else a broken picture would be tried again and fail the Job
    assert job["backoffLimitPerIndex"] > 0
    assert pod["restartPolicy"] == "Never"  # which a policy for failures asks for
    # what needs no package that the image lacks
    assert args.form == "tar"
    assert args.out.startswith("s3://")
    assert {volume["name"] for volume in pod["volumes"]} == {"registry", "tmp"}
    assert args.setting_checkpoint.startswith(f"{settings_variables('gpu')['EBSEG_REGISTRY']}/")
    assert container["image"] == f"ebseg:{VERSION}-cpu"
    accounts = [account["metadata"]["name"] for account in of_kind("batch", "ServiceAccount")]
    assert accounts == [pod["serviceAccountName"]]
    threads = next(entry["value"] for entry in container["env"] if entry["name"] == "OMP_NUM_THREADS")
    assert threads == container["resources"]["requests"]["cpu"]
