"""The installer and the Makefile's stamps, in a checkout in small, with the real uv and the real pip."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.requirements.checkout import BUILT, LOCKS, SECONDS, TORCH, VISION, Checkout, index, serving, wheel

OWN = {"ebseg": "1", "ebseg-client": "1"}
SERVING = LOCKS["torch"] | LOCKS["serving"] | OWN
TRAINING = SERVING | LOCKS["training"]
DEVELOPMENT = TRAINING | LOCKS["development"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without packages."""
    folder = tmp_path_factory.mktemp("empty") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=SECONDS)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, environment: Path) -> Checkout:
    return Checkout(tmp_path, environment)


@pytest.fixture
def bare(tmp_path: Path) -> Checkout:
    """A checkout without an environment."""
    return Checkout(tmp_path)


@pytest.fixture
def torch_cpu(tmp_path: Path) -> Iterator[str]:
    """An index that has PyTorch without CUDA."""
    wheels = tmp_path / "built-without"
    wheels.mkdir()
    for name, version in (("torch", TORCH), ("torchvision", VISION)):
        wheel(wheels, name, f"{version}+cpu", BUILT)
    index(tmp_path / "torch-cpu", wheels)
    with serving(tmp_path / "torch-cpu") as url:
        yield url


def did_install(printed: str) -> list[str]:
    """The layers that make installed."""
    return re.findall(r"-m requirements\.install .* (\w+)$", printed, re.MULTILINE)


def test_each_target_installs_its_layer_once(bare: Checkout) -> None:
    printed = bare.run("make", "demo")
    assert did_install(printed) == ["serving"]
    assert printed.endswith("the demo runs\n")
    assert bare.installed() == SERVING
    assert not (bare.root / ".venv" / "moto").exists()
    assert did_install(bare.run("make", "demo")) == []
    assert did_install(bare.run("make", "setup")) == ["development"]
    assert bare.installed() == DEVELOPMENT
    assert bare.installed(".venv/moto") == LOCKS["moto"]
    assert did_install(bare.run("make", "-j4", "setup", "demo")) == []


@pytest.mark.parametrize(
    ("changed", "layers"),
    [
        ("requirements/torch.txt", ["serving", "training", "development"]),
        ("requirements/serving.txt", ["serving", "training", "development"]),
        ("requirements/training.txt", [None, "training", "development"]),
        ("requirements/development.txt", [None, None, "development"]),
        ("requirements/moto.txt", [None, None, "development"]),
        ("requirements/uv.txt", [None, None, None]),
        ("requirements/pytorch.py", ["serving", "training", "development"]),
        ("client/pyproject.toml", ["serving", "training", "development"]),
        ("pyproject.toml", ["serving", "training", "development"]),
    ],
)
def test_a_change_concerns_the_layers_that_it_is_in(
    checkout: Checkout, changed: str, layers: list[str | None]
) -> None:
    now = (checkout.root / changed).stat().st_mtime
    for stamp in (".serving", ".training", ".development"):
        (checkout.root / ".venv" / stamp).touch()
        os.utime(checkout.root / ".venv" / stamp, (now + 10, now + 10))
    os.utime(checkout.root / changed, (now + 20, now + 20))
    for target, layer in zip(("demo", "train-tiny", "check"), layers, strict=True):
        found = did_install(checkout.run("make", "--dry-run", target))
        assert found == ([] if layer is None else [layer]), target


def test_what_was_lost_comes_back(checkout: Checkout) -> None:
    checkout.run("training")
    assert checkout.installed() == TRAINING
    (packages,) = (checkout.root / ".venv").glob("lib/python3*/site-packages")
    for path in packages.glob("servething-*/*"):
        path.unlink()
    next(packages.glob("servething-*")).rmdir()
    python = checkout.root / ".venv" / "bin" / "python"
    checkout.run("training")
    assert checkout.installed() == TRAINING
    python.unlink()
    python.symlink_to(checkout.root / "gone")  # as after an upgrade of the system's Python
    assert "error" not in checkout.run("serving")
    assert checkout.installed() == SERVING


def test_torch_with_and_without_cuda(checkout: Checkout, torch_cpu: str) -> None:
    without = {"torch": f"{TORCH}+cpu", "torchvision": f"{VISION}+cpu"}
    lean = {
        name: version for name, version in SERVING.items() if name not in ("nvidia-cublas", "triton")
    } | without
    place = f"TORCH_CPU={torch_cpu}"
    printed = checkout.run("make", "demo", "TORCH=cpu", place)
    assert f"PyTorch {TORCH} without CUDA, from 127.0.0.1\n" in printed
    assert checkout.installed() == lean
    assert did_install(checkout.run("make", "demo", "TORCH=cpu", place)) == []
    assert did_install(checkout.run("make", "demo")) == []
    checkout.run("training")  # what is there stays
    assert checkout.installed() == lean | LOCKS["training"]
    assert did_install(checkout.run("make", "demo", "TORCH=cuda")) == ["serving"]
    assert checkout.installed() == TRAINING
    checkout.run("make", "demo", "TORCH=cpu", place)
    assert checkout.installed() == lean | LOCKS["training"]


def test_an_index_out_of_reach_is_told_in_one_line(checkout: Checkout) -> None:
    printed = checkout.run("serving", "--torch", "cpu", "--torch-cpu", "http://127.0.0.1:9/whl")
    (line,) = [line for line in printed.splitlines() if "CUDA" in line]
    assert line.startswith(
        f"installing PyTorch {TORCH} with CUDA, 3 GB: none without CUDA is to be had, since http://"
    )
    assert checkout.installed() == SERVING


def test_pip_takes_over_where_there_is_no_uv(checkout: Checkout, tmp_path: Path) -> None:
    printed = checkout.run("development", PATH=str(tmp_path))
    (line,) = [line for line in printed.splitlines() if "uv" in line]
    assert line.startswith(
        "pip installs, which takes longer than uv would: uv is not on the PATH, and pip could"
    )
    assert checkout.installed() == DEVELOPMENT
    assert checkout.installed(".venv/moto") == LOCKS["moto"]
    assert "uv is not to be had" in checkout.run("serving", "--with", "uv", code=2, PATH=str(tmp_path))


def test_a_changed_file_is_refused_and_set_up_goes_on_afterwards(checkout: Checkout) -> None:
    """The hash is not the locked one, as after tampering."""
    (path,) = checkout.wheels.glob("servething-*")
    good = path.read_bytes()
    wheel(checkout.wheels, "servething", "1.0", requires=("other",))
    printed = checkout.run("make", "demo", code=2)
    assert "Hash mismatch" in printed
    assert (
        "set-up: error: uv failed, with the reason above; the same command goes on where it stopped"
        in printed
    )
    assert "the demo runs" not in printed
    path.write_bytes(good)
    assert did_install(checkout.run("make", "demo")) == ["serving"]
    assert checkout.installed() == SERVING


@pytest.mark.parametrize("damage", ["file", "pip", "constraint", "python"])
def test_what_is_wrong_is_told_in_one_sentence(
    bare: Checkout, environment: Path, tmp_path: Path, damage: str
) -> None:
    variables: dict[str, str] = {}
    if damage in ("pip", "constraint"):
        shutil.copytree(environment, bare.root / ".venv", symlinks=True)
    if damage == "file":
        (bare.root / ".venv").write_text("", encoding="utf-8")
        wanted = r"\.venv cannot be made or written: File exists"
    elif damage == "pip":
        (tmp_path / "pip.conf").write_text("no section\n", encoding="utf-8")
        variables["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
        wanted = "pip's configuration cannot be read"
    elif damage == "constraint":
        variables["PIP_CONSTRAINT"] = str(tmp_path / "absent.txt")
        wanted = r"pip is configured with the constraint .*absent\.txt, which does not exist"
    else:
        broken = tmp_path / "venv.py"  # in the place of the standard library's
        broken.write_text("raise SystemExit('ensurepip is not available')\n", encoding="utf-8")
        variables["PYTHONPATH"] = str(tmp_path)
        wanted = r"has no venv; Debian's package is python3-venv"
    lines = bare.run("serving", code=2, **variables).splitlines()
    assert re.search(rf"^set-up: error: .*{wanted}", lines[-1])
    assert len(lines) == 1


def test_two_at_once_take_turns(checkout: Checkout) -> None:
    command = [sys.executable, "-m", "requirements.install", "serving"]
    started = [
        subprocess.Popen(
            command, cwd=checkout.root, env=checkout.variables, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    output = [process.communicate(timeout=SECONDS)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sum("waiting for another set-up" in text for text in output) == 1
    assert checkout.installed() == SERVING


def test_interrupted_is_told_and_goes_on(bare: Checkout) -> None:
    command = [sys.executable, "-m", "requirements.install", "serving"]
    with subprocess.Popen(
        command,
        cwd=bare.root,
        env=bare.variables,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while not (bare.root / ".venv" / "pyvenv.cfg").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 130
    assert output.splitlines()[-1] == "set-up: interrupted; the same command goes on"
    bare.run("serving")
    assert bare.installed() == SERVING


@pytest.mark.parametrize(
    ("variable", "values"), [("TORCH", "auto, cpu or cuda"), ("INSTALLER", "auto, uv or pip")]
)
def test_a_wrong_choice_is_refused_before_anything_is_done(
    bare: Checkout, variable: str, values: str
) -> None:
    assert f'{variable} is {values}, not "rocm"' in bare.run("make", "demo", f"{variable}=rocm", code=2)
    assert not (bare.root / ".venv").exists()
