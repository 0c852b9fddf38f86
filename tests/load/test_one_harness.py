"""Servers are started, requests built and percentiles computed in one place each."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("service", "samples", "tests")


@functools.cache
def functions() -> list[tuple[str, ast.AST]]:
    """All functions but those of this file, each with its file."""
    found: list[tuple[str, ast.AST]] = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        if path != Path(__file__):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            kinds = ast.FunctionDef | ast.AsyncFunctionDef
            found += [(str(path.relative_to(ROOT)), node) for node in tree if isinstance(node, kinds)]
    return found


def called(function: ast.AST) -> set[str]:
    """Last names of what it calls."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls}


def texts(function: ast.AST) -> set[str]:
    """The strings in it."""
    constants = (node.value for node in ast.walk(function) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def starts_a_service(function: ast.AST) -> bool:
    return "Popen" in called(function) and bool({"serve", "/readyz"} & texts(function))


def computes_percentiles(function: ast.AST) -> bool:
    own = getattr(function, "name", "").lstrip("_") in ("percentile", "percentiles", "quantile", "quantiles")
    return own or bool({"quantiles", "quantile"} & called(function))


def builds_segment_requests(function: ast.AST) -> bool:
    """By hand, as bytes: with the head and the form."""
    whole = " ".join(texts(function))
    return "Content-Disposition" in whole and "Content-Length" in whole


@pytest.mark.parametrize(
    ("does", "places"),
    [
        (starts_a_service, {"service/bench/process.py"}),
        (computes_percentiles, {"service/observability/quantiles.py"}),
        (builds_segment_requests, set()),
    ],
)
def test_once(does: Callable[[ast.AST], bool], places: set[str]) -> None:
    assert {file for file, function in functions() if does(function)} == places


def test_a_second_one_would_be_found() -> None:
    code = """
def start(): return subprocess.Popen(["ebseg", "serve"])
def p95(values): return statistics.quantiles(values, n=20)[18]
def ask(): return b"POST / HTTP/1.1" + f"Content-Length: {1} Content-Disposition: form-data".encode()
"""
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    assert [starts_a_service(node) for node in found] == [True, False, False]
    assert [computes_percentiles(node) for node in found] == [False, True, False]
    assert [builds_segment_requests(node) for node in found] == [False, False, True]
