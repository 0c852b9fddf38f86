"""Benchmarks of batches on a device, on the pretended accelerator, and of names."""

import json
from typing import Any

import pytest

import ebseg
from model import VARIANTS, TrainingClasses
from model.bench import batches
from model.bench.batches import bench_batches
from model.bench.gpu_card import DATA_SHEETS, data_sheet_peak
from model.network.build import build
from tests.golden.weights import picture
from tests.pretended import pretended_device
from tests.training.gpu_check.test_gpu_check import PretendedCard


class NamedCard(PretendedCard):
    """As one of the table."""

    def describe(self) -> dict[str, Any]:
        return {"name": "NVIDIA H100 80GB HBM3"}

    def watts(self) -> float | None:
        return 321.0


def test_batches_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fractions are the arithmetic over rate and seconds; nothing waits in predict."""
    monkeypatch.setattr(batches, "MATRIX_SIDE", 64)
    with pretended_device() as device:
        network = build(VARIANTS["tiny"], TrainingClasses.of(["a"]), seed=0).to(device)
        steps: list[str] = []
        found = bench_batches(
            network,
            picture(32, 64, 0.5),
            [1, 2],
            flops=1e9,
            dtype="float32",
            compiled=False,
            card=NamedCard(device),
            runs=3,
            progress=steps.append,
        )
    assert steps == ["batches of 1", "batches of 2"]
    assert found["data_sheet_flops_per_second"] == DATA_SHEETS["NVIDIA H100"][0]
    assert [one["batch"] for one in found["batches"]] == [1, 2]
    for one in found["batches"]:
        assert len(one["seconds"]) == 3
        rate = one["batch"] * 1e9 / one["seconds_median"]
        assert one["fraction_of_limit"] == pytest.approx(rate / found["device_matmul_flops_per_second"])
        assert one["fraction_of_data_sheet"] == pytest.approx(rate / 67e12)
        assert one["pictures_per_second"] == pytest.approx(one["batch"] / one["seconds_median"])
        assert one["waits_per_picture"] == 0
        assert 0 <= one["overlap"] <= 1
        assert one["watts"] == 321.0
    launches = [one["launches_per_picture"] for one in found["batches"]]
    assert launches[0] > 100
    assert launches[1] == pytest.approx(launches[0] / 2, rel=0.1)


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA A100-SXM4-40GB", "float16", 312e12),
        ("NVIDIA H200 NVL", "float16", 835e12),
        ("NVIDIA A10", "float32", 31.2e12),
        ("NVIDIA A10G", "float32", 35e12),
        ("NVIDIA A1000", "float32", None),
        ("Tesla V100-SXM2-16GB", "float16", 125e12),
        ("Tesla V100-PCIE-16GB", "float16", 112e12),
        ("NVIDIA L40", "bfloat16", 181e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "bfloat16", 362e12),
        ("GeForce 256", "float32", None),
    ],
)
def test_the_table_of_cards(name: str, dtype: str, peak: float | None) -> None:
    assert data_sheet_peak(name, dtype) == peak


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert ebseg.main(["bench", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_engine_with_batches_and_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(
        capsys,
        *("engine", "--variant", "tiny", "--shape", "32x64", "--batch", "1,2", "--device", "cpu"),
        *("--classes", "3", "--runs", "2", "--json"),
    )
    assert found["shape"] == [32, 64]
    assert found["device"] == "cpu"
    assert found["card"] is None
    assert [one["batch"] for one in found["batches"]] == [1, 2]
    assert all(one["waits_per_picture"] is one["overlap"] is None for one in found["batches"])


def test_classes(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "classes", "--variant", "tiny", "--size", "64", "--runs", "2", "--json")
    assert found["classes"] == [1, 20, 150, 847]
    first, again = found["processor_seconds_medians"], found["again_processor_seconds_medians"]
    assert found["ratio"] == pytest.approx(first[3] / first[0])
    assert found["again_ratio"] == pytest.approx(max(b / a for a, b in zip(first, again, strict=True)))
    assert 0 < found["again_ratio"] < 1


@pytest.mark.parametrize(
    "wrong", [["--shape", "640"], ["--shape", "0x5"], ["--batch", "1,x"], ["--device", "tpu"]]
)
def test_what_the_engine_benchmark_refuses(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = ebseg.main(["bench", "engine", "--variant", "tiny", "--size", "32", *wrong])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
