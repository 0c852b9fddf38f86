"""The top-level command: exit codes, one-line errors, a quick start."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import ebseg
import model.commands.inspect
from model.errors import CheckpointError, VocabularyError
from tests.waiting import WAIT

ROOT = Path(__file__).parents[1]
HELP = [sys.executable, "-E", "ebseg.py", "--help"]  # -E: output is buffered, whatever the environment says


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `ebseg inspect` fail."""

    def command(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(model.commands.inspect, "run", command)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CheckpointError("no manifest"), 2, "no manifest"),
        (VocabularyError("two\nlines", 0), 2, "two lines"),
        (OSError(28, "No space left on device"), 1, "[Errno 28] No space left on device"),
        (PermissionError(13, "Permission denied", "out"), 1, "error: out: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module", name="fastapi"), 1, "fastapi: pip install 'ebseg[service]'"),
        (ModuleNotFoundError("No module", name="torch.nn"), 1, "package torch: pip install 'ebseg[model]'"),
        (ModuleNotFoundError("No module", name="numpy"), 1, "package numpy: pip install 'ebseg'"),
        (ModuleNotFoundError("No module", name="lost"), 1, "ModuleNotFoundError: No module"),
        (ImportError("cannot import name", name="fastapi"), 1, "ImportError: cannot import name"),
        (ZeroDivisionError("by zero"), 1, "ZeroDivisionError: by zero (this is a fault of ebseg"),
    ],
)
def test_errors_are_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    raising(monkeypatch, error)
    assert ebseg.main(["inspect", "somewhere"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ebseg: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_debug_adds_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(monkeypatch, CheckpointError("no manifest"))
    assert ebseg.main(["--debug", "inspect", "somewhere"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("\nebseg: error: no manifest\n")


def test_unknown_options_name_the_help_of_their_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ebseg.main(["models", "list", "--nothing"]) == 2
    printed = capsys.readouterr().err
    assert printed == "ebseg: error: unrecognized arguments: --nothing (see ebseg models list --help)\n"


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("serve --max-pixel 5", "unrecognized arguments: --max-pixel; did you mean --max-pixels?"),
        ("segment p.jpg --class sky", "; did you mean --classes?"),
        ("evaluate a b --proceses=2", "unrecognized arguments: --proceses=2; did you mean --processes?"),
        ("servee", "; did you mean serve?"),
        ("models lst", "; did you mean list?"),
        ("init --variant tny --out a/1", "; did you mean tiny?"),
    ],
)
def test_flags_are_not_guessed_but_asked_for(
    line: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ebseg.main(line.split()) == 2
    assert printed in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "unknown", "inspect a b", "init --variant huge", "--debug"])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert ebseg.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"ebseg: error: .+ \(see ebseg.* --help\)\n", err)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metadata, "version", {"ebseg": "9.8.7"}.__getitem__)
    assert ebseg.main(["--version"]) == 0
    assert capsys.readouterr().out == "ebseg 9.8.7\n"


def test_help_names_every_command() -> None:
    found = subprocess.run(HELP, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=True)
    assert found.stderr == ""
    for command in ("serve", "segment", "import", "inspect", "init", "export"):
        assert re.search(rf"^    {command} ", found.stdout, re.MULTILINE)


def test_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = subprocess.run(HELP, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=WAIT)
    finally:
        os.close(writer)
    assert (found.returncode, found.stderr) == (141, b"")


def test_closed_output_is_quiet() -> None:
    line = ["sh", "-c", 'exec "$0" "$@" >&-', *HELP[:-1], "completion", "bash"]
    found = subprocess.run(line, cwd=ROOT, stderr=subprocess.PIPE, timeout=WAIT)
    assert (found.returncode, found.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("torch", "service.commands.serve", "service"),
        ("torch.cuda", "training.commands.train", "training"),
        ("torch", "model.commands.inspect", "model"),
        ("cv2", "training.commands.prepare", "training"),
        ("cv2", "service.commands.segment.command", "service"),
        ("scipy.optimize", "service.commands.serve", "training"),
        ("s3fs", "model.commands.inspect", "s3"),
        ("rich", "model.commands.inspect", ""),
        ("lost", "model.commands.inspect", None),
    ],
)
def test_extra_is_the_one_of_the_command(module: str, command: str, extra: str | None) -> None:
    assert ebseg._extra(module, command) == extra


def test_extras_are_those_of_the_distribution() -> None:
    """Each package that an extra asks for is named by what `import` calls it."""
    names = {
        "ebseg_client": "ebseg_client",
        "mlflow_skinny": "mlflow",
        "open_clip_torch": "open_clip",
        "opencv_python_headless": "cv2",
        "opentelemetry_api": "opentelemetry",
        "opentelemetry_exporter_otlp_proto_http": "opentelemetry",
        "opentelemetry_instrumentation_asgi": "opentelemetry",
        "opentelemetry_sdk": "opentelemetry",
        "pillow": "PIL",
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, packages in ebseg.EXTRAS.items():
        own = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in asked[extra]} - {"ebseg"}
        assert {names.get(name, name) for name in own} <= packages, extra
    assert set(ebseg.EXTRAS) >= {"", "model", "service", "training", "s3", "otlp"}
