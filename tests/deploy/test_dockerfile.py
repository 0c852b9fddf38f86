"""The Dockerfile: linted, and held against the code. build_image.py builds it and runs what comes out."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.error
from pathlib import Path

import pytest

import ebseg
from requirements import layers, pytorch
from service.bench.process import free_port
from service.settings import load_settings
from tests.deploy.files import ROOT, SETS, VERSION, service_pod, tool
from tests.service.fakes import FakeEngine, live
from tests.waiting import WAIT

DOCKERFILE = ROOT / "Dockerfile"


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
        timeout=WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_is_sent_to_the_builder() -> None:
    """.dockerignore lets nothing pass but what is copied, and all of that."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for rest in arguments("COPY") if "--from" not in rest for source in rest.split()[:-1]}
    assert {name for name in copied if str(Path(name).parent) not in copied} == sent
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
    for values in SETS:
        context = service_pod(values)["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
        assert service_pod(values)["containers"][0]["args"] == json.loads(arguments("CMD")[0])
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
        monkeypatch.delenv("EBSEG_PORT")
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        exec(compile(script, "healthcheck", "exec"), {})
    monkeypatch.setenv("EBSEG_PORT", str(free_port()))
    with pytest.raises(urllib.error.URLError):
        exec(compile(script, "healthcheck", "exec"), {})


def listed(layer: str) -> str:
    """What the Dockerfile has pip install beside PyTorch."""
    return subprocess.run(
        [sys.executable, "-m", "requirements.install", layer, "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    ).stdout


def test_layers_bring_what_the_locks_have_but_pytorch() -> None:
    (layer,) = [rest.partition("=")[2] for rest in arguments("ARG") if rest.startswith("LAYER=")]
    assert layer == "serving"
    for name in ("serving", "training"):
        lines = {line for file in layers.files(name) for line in layers.entries(file)}
        found = set(re.findall(r"^([a-z0-9].*?) \\$", listed(name), re.MULTILINE))
        assert found < lines
        left = {layers.name_of(line) for line in lines - found}
        assert left >= {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"}
        assert all(layers.is_cuda_only(name) or name in layers.BUILT_BOTH_WAYS for name in left)


def test_without_cuda_the_lock_is_taken_apart(tmp_path: Path) -> None:
    """PyTorch from its own index, the rest with its hashes from where all others come from."""
    ((place, steps),) = [
        (re.search(r"TORCH_CPU=(\S+)", " ".join(arguments("ARG"))), rest)
        for rest in arguments("RUN")
        if "torch-cpu.txt" in rest
    ]
    assert place is not None
    assert place[1] == pytorch.TORCH_CPU
    split = " && ".join(step for step in steps.split(" && ") if not step.startswith("pip "))
    shutil.copy(layers.path("torch"), tmp_path)
    subprocess.run(["sh", "-euc", split], cwd=tmp_path, check=True, timeout=WAIT)
    assert (tmp_path / "torch-cpu.txt").read_text(encoding="utf-8") == pytorch.requirements()
    names = {layers.name_of(line) for line in layers.entries(tmp_path / "others.txt")}
    everything = {layers.name_of(line) for line in layers.entries(layers.path("torch"))}
    assert names == {
        name for name in everything if not (layers.is_cuda_only(name) or name in layers.BUILT_BOTH_WAYS)
    }
    assert "--hash=" in (tmp_path / "others.txt").read_text(encoding="utf-8")


def test_nothing_is_resolved_in_the_build() -> None:
    calls = [
        step for rest in arguments("RUN") for step in rest.split(" && ") if step.startswith("pip install")
    ]
    assert len(calls) == 5
    assert [call for call in calls if "--no-deps" not in call] == []


def test_no_source_and_no_other_pin_makes_pytorch_anew() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    stages = {
        match[1]: match[0]
        for match in re.finditer(r"^FROM \S+ AS (\S+)\n(?:(?!FROM ).*\n)*", text, re.MULTILINE)
    }
    for stage, copied in {
        "build": [],
        "torch-cpu": ["requirements/torch.txt"],
        "torch-cuda": ["requirements/torch.txt"],
        "torch": [],
    }.items():
        lines = re.findall(r"^(?:COPY|ADD) (.+) \S+$", stages[stage], re.MULTILINE)
        assert lines == copied, stage


def test_nothing_of_a_machine_is_in_the_files() -> None:
    for path in [
        DOCKERFILE,
        *Path(ROOT / "requirements").glob("*.txt"),
        ROOT / "docker-compose.yml",
        *Path(ROOT / "k8s").rglob("*.yaml"),
    ]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(root|home|work)/|file://", text), path
