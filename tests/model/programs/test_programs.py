"""Programs of the network: they run where this package is not, compute the same, and are kept only then."""

import dataclasses
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

import ebseg
from model import VARIANTS, EBSegConfig, TrainingClasses
from model.bench import runtimes
from model.errors import CheckpointError
from model.network.build import build
from model.programs import writing
from model.programs.making import _largest_of_cells, program_of
from model.storage.checkpoint import Provenance, load, save
from model.storage.files import read_tensors, write_tensors
from model.storage.golden import OUTPUTS
from tests.golden.weights import picture
from tests.model.conftest import rough
from tests.waiting import LONG_WAIT

SHAPE, SIZE = (96, 128), (81, 103)
CLOSENESS = 1e-4
ALONE = """
import sys
sys.path.append(sys.argv[1])
import importlib.util
import torch
import safetensors.torch
assert not any(importlib.util.find_spec(name) for name in ("model", "service", "training", "ebseg"))
program = torch.export.load("program.pt2").module()
inputs = safetensors.torch.load_file("inputs.safetensors")
found = program(inputs["images"], inputs["sizes"])
safetensors.torch.save_file(dict(zip(sys.argv[2:], found, strict=True)), "outputs.safetensors")
assert not any(name.partition(".")[0] == "model" for name in sys.modules)
"""


def small_config() -> EBSegConfig:
    """As few layers as will do: every kind of part is there once."""
    tiny = VARIANTS["tiny"]
    return dataclasses.replace(
        tiny,
        pixel_decoder=dataclasses.replace(tiny.pixel_decoder, layers=1),
        transformer_decoder=dataclasses.replace(tiny.transformer_decoder, layers=1),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registry") / "small" / "3"
    network = rough(build(small_config(), TrainingClasses.of(["a"]), seed=0))
    save(network, folder, Provenance(name="small", version=3, untrained=False))
    return folder


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    padded = torch.zeros(1, 3, *SHAPE, dtype=torch.uint8)
    padded[0, :, : SIZE[0], : SIZE[1]] = picture(*SIZE, 0.25)
    return {"images": padded, "sizes": torch.tensor([SIZE])}


@pytest.fixture(scope="module")
def wanted(checkpoint: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return dict(zip(OUTPUTS, load(checkpoint).ebseg(*inputs.values()), strict=True))


@pytest.fixture(scope="module")
def program(checkpoint: Path) -> ExportedProgram:
    return program_of(load(checkpoint).ebseg, SHAPE)


def check(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, own in wanted.items():
        assert found[name].shape == own.shape
        assert float((found[name] - own).norm() / own.norm()) <= CLOSENESS, name


def export(checkpoint: Path, *words: object) -> int:
    return ebseg.main(["export", str(checkpoint), *(str(word) for word in words)])


def test_a_torch_package_runs_without_our_code(
    checkpoint: Path,
    program: ExportedProgram,
    inputs: dict[str, Tensor],
    wanted: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process that has third parties' packages alone."""
    monkeypatch.setattr(writing, "program_of", lambda *_: program)
    assert (
        export(checkpoint, "--format", "torch-export", "--shape", "96x128", "--out", tmp_path / "program.pt2")
        == 0
    )
    write_tensors(tmp_path / "inputs.safetensors", inputs)
    packages = sysconfig.get_path("purelib")
    words = [sys.executable, "-I", "-S", "-W", "ignore", "-c", ALONE, packages, *OUTPUTS]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=LONG_WAIT)
    check(read_tensors(tmp_path / "outputs.safetensors"), wanted)


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path, program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the command makes it, by the name that it gives."""
    folder = tmp_path_factory.mktemp("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(writing, "program_of", lambda *_: program)
        assert export(checkpoint, "--format", "onnx", "--shape", "96x128", "--json") == 0
    path = folder / "small-3-96x128.onnx"
    assert [*folder.iterdir()] == [path]
    return path


def test_an_onnx_file_runs_in_onnxruntime(
    checkpoint: Path, onnx_file: Path, inputs: dict[str, Tensor], wanted: dict[str, Tensor]
) -> None:
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    found = session.run(OUTPUTS, {name: tensor.numpy() for name, tensor in inputs.items()})
    check({name: torch.from_numpy(own) for name, own in zip(OUTPUTS, found, strict=True)}, wanted)
    about = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    assert json.loads(about["ebseg.json"]) == {
        "name": "small",
        "version": 3,
        "digest": load(checkpoint).manifest.digest,
        "shape": [96, 128],
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_other_runtimes_beside_ours(
    runtime: str,
    checkpoint: Path,
    onnx_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runtimes, "program_of", lambda *_: None)
    monkeypatch.setattr(runtimes, "write_onnx", lambda _, path, about: shutil.copyfile(onnx_file, path))
    words = ("bench", "engine", "--checkpoint", str(checkpoint), "--shape", "96x128", "--classes", "2")
    assert ebseg.main([*words, "--runs", "2", "--runtime", runtime, "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["runtime"]
    assert found["runtime"] == runtime
    assert found["largest_difference"] <= CLOSENESS
    assert found["ratio"] == pytest.approx(
        found["processor_seconds_median"] / found["ours_processor_seconds_median"]
    )
    assert found["seconds_ratio"] == pytest.approx(found["seconds_median"] / found["ours_seconds_median"])


def test_runtimes_are_compared_in_float32(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("bench", "engine", "--checkpoint", str(checkpoint), "--shape", "96x128", "--dtype", "bfloat16")
    assert ebseg.main([*words, "--runtime", "onnxruntime", "--device", "cpu"]) == 2
    assert "compared on a CPU in float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("off", "kept"), [((0.0,), True), ((1e-3, 0.0), True), ((1e-3, float("nan"), 1e-3, 0.0), False)]
)
def test_a_program_is_kept_if_it_computes_the_same(
    off: tuple[float, ...], kept: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one of three pictures; of what is not kept nothing is left."""
    loaded, errors = load(checkpoint), iter(off)

    def program(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            first, *rest = loaded.ebseg(images, sizes)
        return first * (1 + next(errors)), *rest

    monkeypatch.setattr(writing, "program_of", lambda *_: None)
    monkeypatch.setattr(writing, "WRITERS", {"onnx": lambda _, path, about: path.write_text(about)})
    monkeypatch.setattr(writing, "RUNTIMES", {"onnx": lambda path: program})
    path = tmp_path / "program.onnx"
    if kept:
        assert writing.write_program(loaded, "onnx", SHAPE, path, lambda _: None) <= CLOSENESS
    else:
        with pytest.raises(CheckpointError, match=r"off by 0\.001, more than the 0\.0001 allowed"):
            writing.write_program(loaded, "onnx", SHAPE, path, lambda _: None)
    assert [*tmp_path.iterdir()] == [path] * kept


def test_a_checkpoint_that_computes_something_else_makes_no_program(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load(checkpoint)
    with torch.no_grad():
        loaded.ebseg.background.zero_()
        loaded.ebseg.fusion.requires_grad_(False)
        for parameter in loaded.ebseg.fusion.parameters():
            parameter.mul_(1.1)
    with pytest.raises(CheckpointError, match="golden image's outputs are off"):
        writing.write_program(loaded, "onnx", SHAPE, tmp_path / "x.onnx", lambda _: None)
    assert [*tmp_path.iterdir()] == []


def test_largest_of_cells_of_unequal_sizes() -> None:
    for size, cells in ((24, 32), [8, 10]), ((7, 5), [3, 5]), ((3, 3), [5, 7]):
        x = torch.randn(2, 3, *size)
        assert torch.equal(_largest_of_cells(x, cells)[0], torch.nn.functional.adaptive_max_pool2d(x, cells))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "onnx", "--shape", "100x128"), "multiples of 32"),
        (("--format", "onnx", "--shape", "3200x3200"), "at most 768: got 3200x3200"),
        (("--official", "x.pth", "--shape", "96x128"), "--shape and --out belong to --format"),
        (("--official", "x.pth", "--out", "x.onnx"), "--shape and --out belong to --format"),
        (("--format", "onnx", "--out", "lost/x.onnx"), "lost is not a folder"),
    ],
)
def test_what_is_refused(
    words: tuple[str, ...],
    said: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(checkpoint, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("ebseg: error: ")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_named(
    package: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    assert export(checkpoint, "--format", "onnx", "--shape", "96x128") == 1
    assert f"this needs the package {package}: pip install 'ebseg[export]'" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
