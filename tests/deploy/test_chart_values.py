"""Values of the chart: what is refused and why, what the schema knows, and what helm itself says of it."""

import json
import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from service.settings import Settings, load_settings
from tests.deploy.chart_settings import whole_schema
from tests.deploy.files import CHART, EXAMPLES, helm, helm_template, read_yaml

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def deployment(*arguments: str) -> dict[str, Any]:
    """The Deployment with arguments such as --set."""
    done = helm_template(*arguments)
    assert done.returncode == 0, done.stderr
    (found,) = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Deployment"]
    return dict(found)


def variables(*arguments: str) -> dict[str, str]:
    """The variables of its container that are written out."""
    (container,) = deployment(*arguments)["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def test_helm_lints_it() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("model.source=pull", "model.names is empty: model.source pull has to know which models serve"),
        ("model.names=ebseg-base", 'model.names is "ebseg-base": the packaged model is the only one'),
        ("model.source=bucket,model.names=a", "model.bucket.url is empty"),
        ("redis.kind=url", "redis.url is empty"),
        ("redis.kind=inside", "secret is empty: the password of Redis is its key redis-password"),
        ("canary.enabled=true", "canary.tag is empty"),
        ("ingress.kind=nginx", "ingress.host is empty: ingress.kind nginx needs"),
        ("ingress.kind=gateway,ingress.host=a.example", "ingress.gateway.name is empty"),
        (
            "autoscaling.kind=hpa,autoscaling.minReplicas=11",
            "minReplicas 11 is above autoscaling.maxReplicas 10",
        ),
        ("settings.port=9000", "settings.port: the chart sets this one itself"),
        ("modle.source=pull", "additional properties 'modle' not allowed"),
        ("device=tpu", "must be one of 'cpu', 'gpu'"),
        ("model.bucket.url=ftp://a", "does not match pattern"),
        ("gpu.count=0", "minimum: got 0, want 1"),
        ("settings.max-bytes=5", "additional properties 'max-bytes' not allowed"),
        ("settings.max_byte=1", "additional properties 'max_byte' not allowed"),
        ("cpu.settings.max_byte=1", "additional properties 'max_byte' not allowed"),
        ("settings.max_bytes=100 parsecs", "does not match pattern"),
        ("settings.max_bytes=0", "minimum: got 0, want 1"),
        ("settings.workers=0", "minimum: got 0, want 1"),
        ("settings.max_pending=many", "got string, want integer"),
        ("gpu.settings.dtype=int8", "value must be one of 'auto', 'float32', 'bfloat16', 'float16'"),
        ("settings.share_caches=maybe", "got string, want boolean"),
        ("settings.device=tpu", "does not match pattern"),
        ("networkPolicy.from={10.0.0.0/8}", "does not match pattern"),
    ],
)
def test_values_that_cannot_be_are_refused_in_words(given: str, reason: str) -> None:
    done = helm_template(f"--set={given}")
    assert done.returncode != 0
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        (None, 20 << 20),
        ("104857600", 100 << 20),
        ("100 MiB", 100 << 20),
        ("100MiB", 100 << 20),
        ("5 GB", 5 * 10**9),
        ("100Mi", 100 << 20),
    ],
)
def test_the_proxy_takes_as_large_a_body_as_the_service(size: str | None, nbytes: int) -> None:
    given = [] if size is None else [f"--set=settings.max_bytes={size}"]
    done = helm_template("--set=ingress.kind=nginx,ingress.host=a.example", *given)
    assert done.returncode == 0, done.stderr
    ingress = next(one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Ingress")
    limit = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert limit == str(nbytes)
    written = variables(*given).get("EBSEG_MAX_BYTES", "20 MiB")
    assert load_settings({"max_bytes": written}).max_bytes == nbytes


def test_the_schema_knows_the_settings_of_today() -> None:
    """`python -m tests.deploy.chart_settings` writes them anew."""
    assert whole_schema() == SCHEMA


def test_googles_load_balancer_reaches_the_pods_of_a_closed_cluster() -> None:
    done = helm_template(f"--values={EXAMPLES / 'gke.yaml'}")
    assert done.returncode == 0, done.stderr
    (policy,) = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "NetworkPolicy"]
    blocks = [
        source["ipBlock"]["cidr"]
        for rule in policy["spec"]["ingress"]
        for source in rule.get("from", [])
        if "ipBlock" in source
    ]
    assert blocks == ["35.191.0.0/16", "130.211.0.0/22"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("autoscaling.kind=hpa", "monitoring.kind none has no Prometheus look at the pods"),
        ("autoscaling.kind=keda,monitoring.kind=google", "autoscaling.prometheus, now http://prometheus-op"),
        (
            "autoscaling.kind=hpa,monitoring.kind=google",
            "the cluster needs Google's Custom Metrics Stackdriver Adapter",
        ),
        ("autoscaling.kind=none", ""),
    ],
)
def test_notes_say_what_scaling_still_lacks(given: str, told: str) -> None:
    words = ["install", "ebseg", str(CHART), "--dry-run=client", f"--set={given}"]
    notes = " ".join(helm(*words).stdout.partition("NOTES:")[2].split())
    assert notes
    if told:
        assert told in notes
    else:
        assert "scales" not in notes


def test_the_schema_knows_every_value() -> None:
    """And every set of values fits it: none is spelled in a way that helm would drop."""
    values = read_yaml(CHART / "values.yaml")
    jsonschema.validate(values, SCHEMA)

    def names(schema: dict[str, Any]) -> Any:
        return {name: names(part) for name, part in schema.get("properties", {}).items()}

    def given(part: Any, schema: Any) -> Any:
        return {name: given(part[name], schema[name]) for name in part} if schema else {}

    known = names(SCHEMA)
    assert known.pop("global") == {}  # Helm's own
    assert given(values, known) == known
    for path in EXAMPLES.iterdir():
        jsonschema.validate(read_yaml(path), SCHEMA)


def test_settings_are_written_as_the_service_reads_them() -> None:
    found = variables(
        "--set=settings.max_bytes=104857600,settings.stall_s=2.5,settings.share_caches=true",
        "--set=settings.max_pending=3",
    )
    assert found["EBSEG_MAX_BYTES"] == "104857600"  # not 1.048576e+08
    assert (found["EBSEG_STALL_S"], found["EBSEG_SHARE_CACHES"]) == ("2.5", "true")
    assert found["EBSEG_MAX_PENDING"] == "3"  # over the device's own
    values = read_yaml(CHART / "values.yaml")
    for block in ("cpu", "gpu"):
        assert set(values[block]["settings"]) <= set(Settings.model_fields)


def test_a_longer_drain_makes_a_longer_grace_period() -> None:
    spec = deployment("--set=settings.drain_timeout_s=100")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 145


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("redis://cache", [6379]),
        ("redis://cache:7000", [7000]),
        ("rediss://:$(REDIS_PASSWORD)@cache.example.com:6380/2", [6380]),
        ("redis+cluster://a:7000,b:7001,c:7000?ssl_ca_certs=/f", [7000, 7001]),
        ("rediss+sentinel://:p@a,b:26380/main/0", [26379, 26380, 6379]),
    ],
)
def test_the_network_policy_opens_the_ports_of_the_url(url: str, ports: list[int]) -> None:
    escaped = url.replace(",", "\\,")
    done = helm_template("--set=redis.kind=url,networkPolicy.enabled=true", f"--set=redis.url={escaped}")
    policies = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "NetworkPolicy"]
    rules = [rule for rule in policies[0]["spec"]["egress"] if "10.0.0.0/8" in str(rule)]
    assert [entry["port"] for rule in rules for entry in rule["ports"]] == ports


def test_two_releases_of_one_namespace_do_not_meet() -> None:
    done = helm_template(release="second")
    found = {one["metadata"]["name"] for one in yaml.safe_load_all(done.stdout) if one}
    assert found == {"second-ebseg"}
    assert re.findall(r"app.kubernetes.io/instance: (\S+)", done.stdout).count("second") >= 5


def test_packed_it_is_whole(tmp_path: Any) -> None:
    """As it is pushed to a registry: links are files in it, and it renders the same."""
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("ebseg-*.tgz")
    arguments = ("--namespace", "ebseg", f"--values={EXAMPLES / 'cpu.yaml'}")
    assert (
        helm("template", "ebseg", str(package), *arguments).stdout
        == helm("template", "ebseg", str(CHART), *arguments).stdout
    )
