"""The Dockerfile: linted, and held against the code. build_image.py builds it and runs what comes out."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import ebseg
from service.bench.process import free_port
from service.settings import load_settings
from tests.deploy.container import pins
from tests.deploy.files import OVERLAYS, ROOT, VERSION, service_pod, tool
from tests.service.fakes import FakeEngine, live

DOCKERFILE = ROOT / "Dockerfile"
CONSTRAINTS = ROOT / "docker" / "constraints.txt"
TORCH = ROOT / "docker" / "constraints-torch.txt"


def instructions() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8")).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def arguments(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [tool("hadolint"), "--no-color", str(DOCKERFILE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore lets nothing pass but what is copied, and all of that."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for rest in arguments("COPY") if "--from" not in rest for source in rest.split()[:-1]}
    assert copied == sent
    assert [path for path in copied if not (ROOT / path).exists()] == []
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = {name.rstrip("*") for name in packages["packages"]["find"]["include"]} | {
        f"{name}.py" for name in packages["py-modules"]
    }
    assert tops <= copied


def test_is_run_as_the_manifests_say() -> None:
    (user,) = arguments("USER")
    (port,) = arguments("EXPOSE")
    variables = dict(part.split("=", 1) for rest in arguments("ENV") for part in shlex.split(rest))
    settings = load_settings(
        {
            name.removeprefix("EBSEG_").lower(): value
            for name, value in variables.items()
            if name.startswith("EBSEG_")
        }
    )
    assert (settings.host, settings.port) == ("0.0.0.0", int(port))
    for overlay in OVERLAYS:
        context = service_pod(overlay)["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
        assert service_pod(overlay)["containers"][0]["args"] == json.loads(arguments("CMD")[0])
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["ebseg"]
    assert ebseg.build_parser().parse_args(json.loads(arguments("CMD")[0])).run
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    targets = {
        rest.split(" AS ")[1].removeprefix("target-") for rest in arguments("FROM") if " AS target-" in rest
    }
    assert targets == {"cpu", "cuda"}
    assert f"VERSION={VERSION}" in arguments("ARG")


def healthcheck() -> list[str]:
    (rest,) = arguments("HEALTHCHECK")
    command: list[str] = json.loads(rest.partition("CMD ")[2])
    return command


def test_health_check_tells_alive_from_dead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, flag, script = healthcheck()
    assert (program, flag) == ("python3", "-c")
    with live(FakeEngine()) as (url, _):
        monkeypatch.setenv("EBSEG_PORT", url.rpartition(":")[2])
        exec(compile(script, "healthcheck", "exec"), {})
    monkeypatch.setenv("EBSEG_PORT", str(free_port()))
    with pytest.raises(urllib.error.URLError):
        exec(compile(script, "healthcheck", "exec"), {})


def asked(extras: str) -> list[Requirement]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "requirements.py"), extras],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Requirement(line) for line in done.stdout.splitlines()]


def test_requirements_are_those_of_the_package() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    own, *others = project["dependencies"]
    assert Requirement(own).name == "ebseg-client"
    assert [str(found) for found in asked("")] == [str(Requirement(line)) for line in others]
    names = {found.name for found in asked("service,otlp,s3")}
    parts = ("model", "service", "otlp", "s3")
    lines = [*others, *(line for extra in parts for line in optional[extra])]
    assert names == {Requirement(line).name for line in lines} - {"ebseg"}
    (extras,) = [rest.partition("=")[2] for rest in arguments("ARG") if rest.startswith("EXTRAS=")]
    assert set(extras.split(",")) <= set(optional)


def test_an_unknown_extra_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "requirements.py"), "service,rockets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no extra rockets; there are dev, model, otlp," in done.stderr


@pytest.mark.parametrize("extras", ["service,otlp,s3", "training,s3"])
def test_every_requirement_is_pinned_within_its_bounds(extras: str) -> None:
    pinned = pins(CONSTRAINTS)
    for requirement in asked(extras):
        version = pinned[requirement.name.replace("_", "-").lower()]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_no_source_and_no_other_pin_makes_pytorch_anew() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    stages = {
        match[1]: match[0]
        for match in re.finditer(r"^FROM \S+ AS (\S+)\n(?:(?!FROM ).*\n)*", text, re.MULTILINE)
    }
    for stage, copied in {
        "build": [],
        "torch-cpu": ["docker/constraints-torch.txt"],
        "torch-cuda": ["docker/constraints-torch.txt"],
        "torch": [],
    }.items():
        lines = re.findall(r"^(?:COPY|ADD) (.+) \S+$", stages[stage], re.MULTILINE)
        assert lines == copied, stage


def test_nothing_of_a_machine_is_in_the_files() -> None:
    for path in [
        DOCKERFILE,
        CONSTRAINTS,
        TORCH,
        ROOT / "docker-compose.yml",
        *Path(ROOT / "k8s").rglob("*.yaml"),
    ]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(root|home|work)/|file://", text), path
