"""The benchmark commands, on the tiny model: what they print adds up."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ebseg
from model.allocator import keep_freed_memory, return_freed_memory
from model.bench import engine

ROOT = Path(__file__).parents[2]


def bench(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert ebseg.main(["bench", *args]) == 0
    printed = capsys.readouterr()
    assert "warm-up" in printed.err or "segmenting" in printed.err
    assert printed.err.splitlines()[-1].startswith("ebseg: next: ebseg ")
    result: dict[str, Any] = json.loads(printed.out.splitlines()[-1])
    return result


def test_engine(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "engine", "--variant", "tiny", "--size", "64", "--classes", "3", "--runs", "3")
    assert (result["variant"], result["size"], result["classes"], result["dtype"]) == (
        "tiny",
        64,
        3,
        "float32",
    )
    assert len(result["seconds"]) == result["runs"] == 3
    assert result["seconds_median"] == sorted(result["seconds"])[1]
    ideal = result["necessary_flops"] / result["matmul_flops_per_second"]
    assert result["ideal_seconds"] == pytest.approx(ideal)
    assert result["fraction_of_limit"] == pytest.approx(ideal / result["seconds_median"])
    assert (result["matmul_dtype"], result["dtype_emulated"]) == ("float32", False)
    assert 1e8 < result["necessary_flops"] < 1e9
    assert result["peak_bytes"] > result["weights_bytes"] > 12e6
    assert result["torch"]
    assert result["cpu"]


def test_engine_in_half_precision(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(
        capsys, "engine", "--variant", "tiny", "--size", "64", "--dtype", "bfloat16", "--runs", "3"
    )
    assert (result["dtype"], result["classes"]) == ("bfloat16", 150)
    assert result["matmul_dtype"] == ("float32" if result["dtype_emulated"] else "bfloat16")
    assert 0 < result["fraction_of_limit"] < 1  # far below: small pictures are no work for large products


@pytest.mark.parametrize(
    ("seconds", "limit"), [(0.5, torch.bfloat16), (1.0, torch.bfloat16), (60, torch.float32)]
)
def test_limit_is_float32s_where_the_type_is_emulated(
    seconds: float, limit: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that products put forward: one of bfloat16 takes so many seconds, one of float32 one."""
    clock = [0.0]
    took = {torch.bfloat16: seconds, torch.float32: 1.0}

    def product(dtype: torch.dtype, side: int) -> Callable[[], None]:
        return lambda: clock.append(clock[-1] + took[dtype])

    monkeypatch.setattr(engine, "matrix_product", product)
    monkeypatch.setattr("model.bench.engine.time.process_time", lambda: clock[-1])
    notes: list[str] = []
    assert engine.limit_dtype(torch.bfloat16, notes.append) == limit
    assert engine.limit_dtype(torch.float32, notes.append) == torch.float32
    emulated = limit == torch.float32
    assert engine.limit_figures(torch.bfloat16, limit)["dtype_emulated"] == emulated
    assert notes == ["this processor emulates bfloat16: the limit is float32's, 60.0 times faster"] * emulated


@pytest.mark.slow
def test_fraction_on_a_processor_without_half_precision() -> None:
    """oneDNN and PyTorch may use AVX2 only: bfloat16 then takes 50 times as long as float32."""
    command = [sys.executable, "-m", "ebseg", "bench", "engine", "--variant", "tiny", "--size", "64"]
    found = subprocess.run(
        [*command, "--classes", "3", "--dtype", "bfloat16", "--runs", "3", "--json"],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(found.stdout)
    assert (result["matmul_dtype"], result["dtype_emulated"]) == ("float32", True)
    assert 0 < result["fraction_of_limit"] < 1
    assert "this processor emulates bfloat16" in found.stderr


def test_figures_for_people_come_before_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "engine", "--variant", "tiny", "--size", "64", "--classes", "3", "--runs", "1"]
    assert ebseg.main(words) == 0
    *figures, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in figures] == list(json.loads(last))
    assert ebseg.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bench"] == "engine"


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(capsys, "text", "--variant", "tiny", "--size", "64", "--classes", "400", "--runs", "3")
    assert result["ratio"] == pytest.approx(result["seconds_median"] / result["predict_seconds_median"])
    assert result["templates"] == 14


def test_memory(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(
        capsys, "memory", "--variant", "tiny", "--width", "300", "--height", "200", "--classes", "900"
    )
    assert result["peak_over_weights_bytes"] == result["peak_bytes"] - result["weights_bytes"]
    assert result["distinct_labels"] >= 1


@pytest.mark.parametrize(
    "wrong", [["--size", "0"], ["--classes", "x"], ["--variant", "huge"], ["--dtype", "int8"]]
)
def test_wrong_options(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ebseg.main(["bench", "engine", *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err


def test_allocator() -> None:
    glibc = platform.libc_ver()[0] == "glibc"
    assert keep_freed_memory() == glibc
    blocks = [bytearray(1 << 20) for _ in range(200)]
    for block in blocks:
        block[:] = b"x" * len(block)
    held = resident()
    del blocks, block
    assert return_freed_memory() == glibc
    assert not glibc or resident() < held - (150 << 20)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
