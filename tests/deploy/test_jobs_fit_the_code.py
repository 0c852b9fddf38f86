"""What the kustomizations beside the chart say, held against the code: commands, images, threads, KServe."""

import re
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

import ebseg
from model.released.known import RELEASED
from service.batch.plan import share
from service.commands.batch import command as batch_command
from service.commands.complaint import UNUSABLE
from service.settings import Settings, load_settings
from tests.deploy.files import (
    AFTER_DRAIN_S,
    NEWEST,
    SETS,
    VERSION,
    of_kind,
    one,
    rendered,
    settings_variables,
)
from training.commands.train import config_of


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
    for values in SETS:
        assert set(re.findall(r"EBSEG_[A-Z_]+", str(rendered(values)))) <= known


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
    variables = settings_variables("eks")
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


def test_kserve_runs_what_ebseg_takes() -> None:
    """A container as KServe wants it, which serves the folder that KServe fetches, on the port it asks."""
    (runtime,) = of_kind("kserve", "ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}},
        NEWEST,
        strict=True,
    )
    args = ebseg.build_parser().parse_args(container["args"])
    settings = load_settings(
        {
            name.removeprefix("setting_"): value
            for name, value in vars(args).items()
            if name.startswith("setting_") and value is not None
        }
    )
    (port,) = container["ports"]
    assert (str(settings.checkpoint), settings.host, settings.port) == (
        "/mnt/models",
        "0.0.0.0",
        port["containerPort"],
    )
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(settings.port)
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert container["image"] == f"ebseg:{VERSION}-cpu"
    (service,) = of_kind("kserve", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    (known,) = runtime["spec"]["supportedModelFormats"]
    assert (model["runtime"], model["modelFormat"]["name"]) == (runtime["metadata"]["name"], known["name"])
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > settings.drain_timeout_s + AFTER_DRAIN_S
