"""The benchmark commands, on the tiny model: what they print adds up."""

import json
import platform
from typing import Any

import pytest

import ebseg
from model.allocator import keep_freed_memory


def bench(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert ebseg.main(["bench", *args]) == 0
    printed = capsys.readouterr()
    assert "warm-up" in printed.err or "segmenting" in printed.err
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
    assert 1e8 < result["necessary_flops"] < 1e9
    assert result["peak_bytes"] > result["weights_bytes"] > 12e6
    assert result["torch"]
    assert result["cpu"]


def test_engine_in_half_precision(capsys: pytest.CaptureFixture[str]) -> None:
    result = bench(
        capsys, "engine", "--variant", "tiny", "--size", "64", "--dtype", "bfloat16", "--runs", "1"
    )
    assert (result["dtype"], result["classes"]) == ("bfloat16", 150)
    assert 0 < result["fraction_of_limit"] < 1


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
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
