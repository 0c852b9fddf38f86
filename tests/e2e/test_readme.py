"""The commands and examples of the documents, run as they are written.

A real server listens on a free port instead of 8000; nothing else is changed.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import ebseg
from tests.e2e.conftest import INIT
from tests.e2e.documents import ROOT, blocks, commands

SERVE = "ebseg serve --checkpoint registry/ebseg-tiny/1"
DEFAULT_URL = "http://127.0.0.1:8000"
SECONDS = 60.0
PHOTOGRAPH_SIZE = (600, 400)
NAMES = ["cup", "saucer", "spoon", "coffee", "dining table"]

# Every command that no test runs, and why.
NOT_RUN = {
    "make setup": "installs; the targets are looked at by test_make_knows_the_target",
    "make demo": "test_demo.py runs what it runs",
    "make test": "would run this test in itself",
    "make check test": "would run this test in itself",
    ". .venv/bin/activate": "the tests run in an environment already",
    "ebseg import EBSeg_base.pth --variant base --out registry/ebseg-base/1": "needs the released weights",
    "ebseg inspect registry/ebseg-base/1": "needs the released weights",
    "ebseg serve --checkpoint registry/ebseg-base/1": "needs the released weights",
    "ebseg export registry/ebseg-base/1 --official EBSeg_base_again.pth": "needs the released weights",
    "ebseg bench engine --variant base --size 640 --classes 150 --dtype float32": "takes minutes",
    "ebseg bench engine --variant base --size 640 --classes 150 --dtype bfloat16": "takes minutes",
    "ebseg bench text --classes 150": "takes minutes",
    "ebseg bench memory --classes 847 --width 4000 --height 3000": "takes gigabytes",
}


def json_answer(workspace: Path, output: str) -> None:
    answer = json.loads(output)
    assert answer["size"] == dict(zip(("width", "height"), PHOTOGRAPH_SIZE, strict=True))
    assert [entry["name"] for entry in answer["classes"]] == NAMES
    assert sum(entry["area"] for entry in answer["classes"]) == 600 * 400
    assert answer["model"]["untrained"] is True


def label_map(workspace: Path, output: str) -> None:
    with Image.open(workspace / "mask.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "P", PHOTOGRAPH_SIZE)
        assert set(np.unique(np.asarray(mask))) <= {1, 2, 3}


def overlay(workspace: Path, output: str) -> None:
    with Image.open(workspace / "overlay.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", PHOTOGRAPH_SIZE)


def table_and_files(workspace: Path, output: str) -> None:
    assert "ebseg-tiny/1 (UNTRAINED)" in output
    assert all(name in output for name in ("cup", "saucer", "spoon"))
    label_map(workspace, output)
    with Image.open(workspace / "overlay.png") as picture:
        assert (picture.format, picture.size) == ("PNG", PHOTOGRAPH_SIZE)


def contents(workspace: Path, output: str) -> None:
    assert "ebseg-tiny" in output
    assert "model.safetensors" in output
    assert "untrained" in output


# Every command that is run, and what has to come of it.
RUN: dict[str, Callable[[Path, str], None]] = {
    f'curl -F image=@samples/coffee.jpg -F classes="{", ".join(NAMES)}" '
    f"{DEFAULT_URL}/v1/segment": json_answer,
    'curl -H "Accept: image/png" -F image=@samples/coffee.jpg -F classes="cup, saucer, spoon" '
    f"-o mask.png {DEFAULT_URL}/v1/segment": label_map,
    'curl -H "Accept: image/webp" -F image=@samples/coffee.jpg -F classes="cup, saucer, spoon" '
    f"-o overlay.webp {DEFAULT_URL}/v1/segment": overlay,
    "ebseg segment samples/coffee.jpg --checkpoint registry/ebseg-tiny/1 "
    '--classes "cup, saucer, spoon" --out mask.png --overlay overlay.png': table_and_files,
    "ebseg inspect registry/ebseg-tiny/1": contents,
}


@pytest.fixture(scope="module")
def url(workspace: Path, environment: dict[str, str]) -> Iterator[str]:
    """The README's server, on a free port; it has to end with 0."""
    log = workspace / "server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [*shlex.split(SERVE), "--port", "0"], cwd=workspace, env=environment, stderr=sink
        )
    try:
        yield wait_until_ready(server, log)
        server.terminate()
        assert server.wait(SECONDS) == 0, log.read_text(encoding="utf-8")
    finally:
        server.kill()
        server.wait()


def wait_until_ready(server: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text(encoding="utf-8")
        whole_lines = log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for entry in map(json.loads, whole_lines):
            if "address" in entry and httpx.get(f"{entry['address']}/readyz", timeout=SECONDS).is_success:
                return str(entry["address"])
        time.sleep(0.05)
    raise AssertionError(f"not ready after {SECONDS} s: {log.read_text(encoding='utf-8')}")


def test_every_command_is_run_or_excused() -> None:
    assert sorted(commands()) == sorted([*RUN, *NOT_RUN, INIT, SERVE])


@pytest.mark.parametrize("command", RUN)
def test_command(command: str, url: str, workspace: Path, environment: dict[str, str]) -> None:
    for leftover in workspace.glob("*.[pw]*"):  # pictures of other commands
        leftover.unlink()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace(DEFAULT_URL, url)],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    RUN[command](workspace, done.stdout)


@pytest.mark.parametrize("command", [text for text in commands() if text.startswith("ebseg ")])
def test_command_line_is_known(command: str) -> None:
    args = ebseg.build_parser().parse_args(shlex.split(command)[1:])
    assert callable(args.run)


@pytest.mark.parametrize(
    "command", [*(text for text in commands() if text.startswith("make ")), "make serve", "make bench"]
)
def test_make_knows_the_target(command: str) -> None:
    planned = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert planned.stdout.strip()


def test_python_example(url: str, workspace: Path, environment: dict[str, str]) -> None:
    (example,) = [block.text for block in blocks() if block.language == "python"]
    assert DEFAULT_URL in example
    done = subprocess.run(
        [sys.executable, "-c", example.replace(DEFAULT_URL, url)],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["cup", "saucer", "spoon"]
    assert all(line.endswith("regions") for line in lines)


@pytest.mark.parametrize("document", [block.text for block in blocks() if block.language == "json"])
def test_json_example(document: str, url: str) -> None:
    request: dict[str, Any] = json.loads(document)
    with (ROOT / "samples" / "coffee.jpg").open("rb") as photograph:
        response = httpx.post(
            f"{url}/v1/segment", files={"image": photograph}, data={"request": document}, timeout=SECONDS
        )
    assert response.status_code == 200, response.text
    answer = response.json()
    names = [item if isinstance(item, str) else item["name"] for item in request.get("classes", [])]
    assert [entry["name"] for entry in answer["classes"]][: len(names)] == names
    assert max(answer["size"].values()) == request.get("output_size", {"long_side": 600})["long_side"]
    asked = set(request.get("outputs", ["rle"]))
    assert asked <= answer.keys() | answer["classes"][0].keys()


def test_blocks_are_of_the_kinds_that_are_run() -> None:
    assert {block.language for block in blocks()} == {"sh", "python", "json"}
