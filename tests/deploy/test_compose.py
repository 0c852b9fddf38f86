"""docker-compose.yml: fits the compose specification's schema, and the code."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema  # type: ignore[import-untyped]

from model.storage.packaged import PRETRAINED
from service.settings import load_settings
from tests.deploy.files import AFTER_DRAIN_S, CHART, ROOT, VERSION, read_yaml
from tests.waiting import WAIT

COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "compose.gpu.yml"
SERVICES: dict[str, dict[str, Any]] = read_yaml(COMPOSE)["services"]
GPU_SERVICES: dict[str, dict[str, Any]] = read_yaml(GPU)["services"]


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_fits_the_specification(path: Path) -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validate(read_yaml(path), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read_yaml(path), "service": {}}, schema)


def settings_of(service: dict[str, Any], **given: str) -> Any:
    """Settings of the environment, with its `${NAME:-default}` filled in."""
    filled = {
        name: re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: given.get(match[1], match[2]), value)
        for name, value in service["environment"].items()
    }
    assert all(name.startswith("EBSEG_") for name in filled)
    return load_settings(
        {name.removeprefix("EBSEG_").lower(): value for name, value in filled.items() if value}
    )


def test_settings_of_the_service() -> None:
    service = SERVICES["ebseg"]
    settings = settings_of(service, EBSEG_API_KEYS="sixteen-letters-or-more")
    assert (settings.registry, settings.model, len(settings.api_keys)) == ("/registry", "ebseg-tiny", 1)
    assert settings_of(service).api_keys == ()
    assert service["ports"] == ["127.0.0.1:${EBSEG_PUBLISHED:-8000}:8000"]
    assert "registry:/registry:ro" in service["volumes"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_timeout_s + AFTER_DRAIN_S
    assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"
    on_gpu = {**service["environment"], **GPU_SERVICES["ebseg"]["environment"]}
    assert settings_of({"environment": on_gpu}).device == "cuda"


def test_every_port_stays_on_the_machine() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    for port in ports:  # one that is taken can be another, and is the container's own if nothing is said
        published = re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PUBLISHED:-(\d+)\}:(\d+)", port)
        assert published is not None, port
        assert published[1] == published[2]


def test_nobody_can_log_in_to_grafana() -> None:
    """Its first user is admin with the password admin."""
    variables = SERVICES["grafana"]["environment"]
    assert variables["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert variables["GF_AUTH_BASIC_ENABLED"] == "false"
    assert variables["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_health_is_checked() -> None:
    """By the image's own check (ebseg), or by one on the port that is published."""
    checked = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    assert checked == {"redis", "prometheus", "grafana"}
    for name in ("prometheus", "grafana"):
        (port,) = SERVICES[name]["ports"]
        assert f"http://127.0.0.1:{port.split(':')[-1]}/" in SERVICES[name]["healthcheck"]["test"][-1]
    for waited, condition in SERVICES["ebseg"]["depends_on"].items():
        if condition["condition"] == "service_healthy":
            assert waited in checked


@pytest.mark.parametrize("services", [SERVICES, GPU_SERVICES], ids=["cpu", "gpu"])
def test_seed_is_of_the_services_own_image(services: dict[str, dict[str, Any]]) -> None:
    service, seed = services["ebseg"], services["seed"]
    assert (seed["image"], seed["build"]) == (service["image"], service["build"])
    target = service["build"]["args"]["TARGET"]
    assert service["image"] == f"ebseg:{VERSION}-{target}"
    assert f"FROM runtime AS target-{target}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_prometheus_scrapes_the_service() -> None:
    jobs = {
        job["job_name"]: job for job in read_yaml(ROOT / "docker/prometheus/prometheus.yml")["scrape_configs"]
    }
    (found,) = jobs["ebseg"]["dns_sd_configs"]
    assert found["names"] == ["ebseg"]
    assert found["port"] == int(SERVICES["ebseg"]["ports"][0].split(":")[-1])
    assert "./docker/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_what_is_mounted_and_depended_on_exists() -> None:
    volumes = set(read_yaml(COMPOSE)["volumes"])
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in volumes, name
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        _, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+\.\d+", tag), service["image"]


def test_redis_is_set_up_as_on_kubernetes() -> None:
    command = SERVICES["redis"]["command"]
    options = {
        name.removeprefix("--"): value for name, value in zip(command[1::2], command[2::2], strict=True)
    }
    text = (CHART / "files" / "redis.conf").read_text(encoding="utf-8")
    shared = dict(line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    assert (options.pop("save"), shared["save"]) == ("", '""')
    assert options == {name: shared[name] for name in options}
    assert SERVICES["redis"]["mem_limit"] == f"{2 * int(options['maxmemory'].removesuffix('mb'))}m"
    assert SERVICES["redis"]["image"] == read_yaml(CHART / "values.yaml")["redis"]["image"]


def test_seed_fills_an_empty_registry_and_leaves_any_other(tmp_path: Path) -> None:
    python, flag, script = SERVICES["seed"]["entrypoint"]
    assert (python, flag) == ("python3", "-c")
    assert SERVICES["seed"]["volumes"] == ["registry:/registry"]
    here = script.replace('"/registry"', repr(str(tmp_path)))
    assert here != script

    def run() -> list[str]:
        subprocess.run([sys.executable, "-c", here], cwd=ROOT, timeout=WAIT, check=True)
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))

    filled = run()
    assert filled == sorted(str(path.relative_to(PRETRAINED)) for path in PRETRAINED.rglob("*"))
    (manifest,) = tmp_path.glob("ebseg-tiny/*/manifest.json")
    manifest.parent.rename(tmp_path / "ebseg-tiny" / "9")
    assert [path for path in run() if path.endswith("manifest.json")] == ["ebseg-tiny/9/manifest.json"]
