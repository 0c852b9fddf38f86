"""The commands and examples of the documents, run as they are written.

A real server listens on a free port instead of 8000; nothing else is changed.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import playwright
import pytest
from PIL import Image

import ebseg
from service.settings import load_settings
from tests.e2e.conftest import HELD_OUT, INIT
from tests.e2e.documents import ROOT, blocks, commands
from tests.e2e.excused import NOT_RUN, TOO_LONG
from tests.e2e.processes import SECONDS, done, served
from tests.waiting import WAIT

SERVE = "ebseg serve"
DEFAULT_URL = "http://127.0.0.1:8000"
PICTURE_SIZE = (512, 384)
NAMES = ["house", "umbrella", "butterfly", "clouds", "hay", "sand"]
LEAST_MIOU = {"trained": 60.0, "new": 25.0}  # percent, on the twenty scenes of `HELD_OUT`


def json_answer(workspace: Path, output: str) -> None:
    answer = json.loads(output)
    assert answer["size"] == dict(zip(("width", "height"), PICTURE_SIZE, strict=True))
    assert [entry["name"] for entry in answer["classes"]] == NAMES
    assert answer["background"]["source"] == "card"
    assert sum(entry["area"] for entry in [*answer["classes"], answer["other"]]) == 512 * 384
    assert answer["model"]["untrained"] is False


def raw_answer(workspace: Path, output: str) -> None:
    assert [entry["name"] for entry in json.loads(output)["classes"]] == ["house", "butterfly", "hay"]


def label_map(workspace: Path, output: str) -> None:
    with Image.open(workspace / "mask.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "P", PICTURE_SIZE)
        assert set(np.unique(np.asarray(mask))) <= set(range(1 + len(NAMES)))


def overlay(workspace: Path, output: str) -> None:
    with Image.open(workspace / "overlay.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", PICTURE_SIZE)


def table_and_files(workspace: Path, output: str) -> None:
    assert "512 x 384, ebseg-tiny/" in output
    assert "UNTRAINED" not in output
    assert all(name in output for name in NAMES)
    assert output.splitlines()[-1] == "next: look at overlay.png"
    label_map(workspace, output)
    with Image.open(workspace / "overlay.png") as picture:
        assert (picture.format, picture.size) == ("PNG", PICTURE_SIZE)


def contents(workspace: Path, output: str) -> None:
    assert "ebseg-tiny" in output
    assert "model.safetensors" in output
    assert "untrained" in output


def scores(workspace: Path, output: str) -> None:
    means = {kind: float(value) for kind, value in re.findall(r"^mIoU, (\w+) .* ([\d.]+)$", output, re.M)}
    assert means["trained"] >= LEAST_MIOU["trained"]
    assert means["new"] >= LEAST_MIOU["new"]


def subsets(workspace: Path, output: str) -> None:
    rows = [line for line in output.splitlines() if line.startswith("|")]
    assert len(rows) >= 2 + 7, output  # a head, and the subsets of three embeddings


def model_status(workspace: Path, output: str) -> None:
    status = json.loads(output)
    assert status["name"] == "ebseg-tiny"
    assert [version["role"] for version in status["versions"]] == ["current"]


def v2_model(workspace: Path, output: str) -> None:
    assert json.loads(output)["name"] == "ebseg-tiny"


def v2_answer(workspace: Path, output: str) -> None:
    names, labels = json.loads(output)["outputs"]
    assert names["data"] == ["house", "butterfly", "hay"]
    assert labels["shape"] == [384, 512]


def batch_rows(workspace: Path, output: str) -> None:
    found = json.loads((workspace / "rows" / "summary.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["errors"]) == (4, 0)
    assert [one["name"] for one in found["classes"] if one["pictures"]] == ["house", "boat", "car", "lamp"]
    assert (workspace / "rows" / "part-000000.parquet").exists()


def batch_rows_of_ray(workspace: Path, output: str) -> None:
    found = json.loads((workspace / "rows-ray" / "summary.json").read_text(encoding="utf-8"))
    assert (found["rows"], found["errors"]) == (4, 0)
    assert [one["name"] for one in found["classes"] if one["pictures"]] == ["house", "boat", "car", "lamp"]


def key_digest(workspace: Path, output: str) -> None:
    assert load_settings({"api_keys": "correct horse battery staple"}).api_keys == (output.split()[0],)


(INFER,) = [command for command in commands() if command.endswith("/v2/models/ebseg-tiny/infer")]

# Every command that is run, and what has to come of it.
RUN: dict[str, Callable[[Path, str], None]] = {
    f'curl -F image=@samples/village.jpg -F classes="{", ".join(NAMES)}" '
    f"{DEFAULT_URL}/v1/segment": json_answer,
    f'curl -H "Accept: image/png" -F image=@samples/village.jpg -F classes="{", ".join(NAMES)}" '
    f"-o mask.png {DEFAULT_URL}/v1/segment": label_map,
    f'curl -H "Accept: image/webp" -F image=@samples/village.jpg -F classes="{", ".join(NAMES)}" '
    f"-o overlay.webp {DEFAULT_URL}/v1/segment": overlay,
    'curl --data-binary @samples/village.jpg -H "Content-Type: image/jpeg" '
    f'"{DEFAULT_URL}/v1/segment?classes=house,butterfly,hay"': raw_answer,
    f'ebseg segment samples/village.jpg --classes "{", ".join(NAMES)}" '
    "--out mask.png --overlay overlay.png": table_and_files,
    "ebseg inspect registry/ebseg-tiny/1": contents,
    f"curl {DEFAULT_URL}/v1/models/ebseg-tiny": model_status,
    'printf %s "correct horse battery staple" | sha256sum': key_digest,
    'ebseg batch samples --classes "house, boat, car, lamp" --out rows': batch_rows,
    'ebseg batch samples --classes "house, boat, car, lamp" --out rows-ray --on ray': batch_rows_of_ray,
    f"curl {DEFAULT_URL}/v2/models/ebseg-tiny": v2_model,
    INFER: v2_answer,
    "ebseg evaluate model/pretrained/ebseg-tiny/1 data/held-out": scores,
    "ebseg ablate embeddings model/pretrained/ebseg-tiny/1 data/held-out": subsets,
}


@pytest.fixture(scope="module")
def url(workspace: Path, environment: dict[str, str]) -> Iterator[str]:
    """The README's server, on a free port."""
    words = [*shlex.split(SERVE), "--port", "0"]
    with served(words, environment, workspace, workspace / "server.log") as address:
        yield address


def test_every_command_is_run_or_excused() -> None:
    run = {*RUN, INIT, HELD_OUT, SERVE}
    long = {text: [start for start in TOO_LONG if text.startswith(start)] for text in {*commands()} - run}
    assert {text for text in commands() if not long.get(text)} == {*run, *NOT_RUN}
    assert {start for starts in long.values() for start in starts} == set(TOO_LONG)


@pytest.mark.parametrize("command", RUN)
def test_command(command: str, url: str, workspace: Path, environment: dict[str, str]) -> None:
    for leftover in workspace.glob("*.[pw]*"):  # pictures of other commands
        leftover.unlink()
    words = ["bash", "-euo", "pipefail", "-c", command.replace(DEFAULT_URL, url)]
    RUN[command](workspace, done(words, environment, workspace).stdout)


@pytest.mark.parametrize("command", [text for text in commands() if text.startswith("ebseg ")])
def test_command_line_is_known(command: str) -> None:
    args = ebseg.build_parser().parse_args(shlex.split(command.partition(" > ")[0])[1:])
    assert callable(args.run)


@pytest.mark.parametrize(
    "command", [*(text for text in commands() if text.startswith("make ")), "make serve", "make bench"]
)
def test_make_knows_the_target(command: str) -> None:
    planned = subprocess.run(
        [*shlex.split(command.partition(" > ")[0]), "--dry-run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert planned.stdout.strip()


def test_python_over_http(url: str, workspace: Path, environment: dict[str, str]) -> None:
    for code in python_blocks("docs/http.md"):
        assert DEFAULT_URL in code
        words = [sys.executable, "-c", code.replace(DEFAULT_URL, url)]
        lines = done(words, environment, workspace).stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["house", "butterfly", "hay"]


def test_javascript_over_http(url: str, workspace: Path, environment: dict[str, str]) -> None:
    """In the Node.js that comes with Playwright."""
    node = Path(playwright.__file__).parent / "driver" / "node"
    (code,) = [block.text for block in blocks() if (block.document, block.language) == ("docs/http.md", "js")]
    assert DEFAULT_URL in code
    (workspace / "example.mjs").write_text(code.replace(DEFAULT_URL, url), encoding="utf-8")
    lines = done([str(node), "example.mjs"], environment, workspace).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["house", "butterfly", "hay"]
    assert all(0 < float(line.split()[1]) < 1 for line in lines)


def test_first_python_example(workspace: Path, environment: dict[str, str]) -> None:
    (example,) = python_blocks("README.md")
    # -P: the workspace's own links to the packages do not count
    lines = done([sys.executable, "-P", "-c", example], environment, workspace).stdout.splitlines()
    assert [line[:10].strip() for line in lines] == ["house", "umbrella", "butterfly", "hay"]
    assert all(line.endswith("% of the image") for line in lines)
    with Image.open(workspace / "overlay.png") as image:
        assert image.size == PICTURE_SIZE
    (workspace / "overlay.png").unlink()


def test_answer_as_the_readme_shows_it(url: str, workspace: Path, environment: dict[str, str]) -> None:
    """All fields of the answer, and the numbers of what is shown of its classes."""
    (text,) = [block.text for block in blocks() if (block.document, block.language) == ("README.md", "json")]
    shown = json.loads(text)
    (command,) = [line for line in RUN if RUN[line] is json_answer]
    words = ["bash", "-euo", "pipefail", "-c", command.replace(DEFAULT_URL, url)]
    answer = json.loads(done(words, environment, workspace).stdout)
    assert shown.keys() == answer.keys()
    assert {name: shown[name].keys() for name in ("model", "timings_ms", "caches")} == {
        name: answer[name].keys() for name in ("model", "timings_ms", "caches")
    }
    assert shown["background"] == answer["background"]
    for entry, real in zip(shown["classes"], answer["classes"], strict=False):
        assert entry.keys() == real.keys()
        for name in ("name", "label", "color", "trained"):
            assert entry[name] == real[name]
        for name in ("fraction", "mean_confidence"):
            assert entry[name] == pytest.approx(real[name], abs=0.02)


def test_notebook_examples(workspace: Path, environment: dict[str, str]) -> None:
    """One after the other in one process, as in a notebook."""
    examples = python_blocks("docs/python.md")
    # -P: the workspace's own links to the packages do not count
    words = [sys.executable, "-P", "-c", "\n".join(examples)]
    lines = done(words, environment, workspace).stdout.splitlines()
    assert lines[0] == "<SegmentedPicture 512 x 384, ebseg-tiny/1>"
    assert lines[-1].startswith("(120, 160) ")
    assert [line.split()[0] for line in lines[-3:-1]] == ["sky", "grass"]
    for name in ("mask.png", "overlay.png"):
        with Image.open(workspace / name) as image:
            assert image.size == (512, 384)
        (workspace / name).unlink()


def test_tritonclient_example(url: str, workspace: Path, environment: dict[str, str]) -> None:
    (example,) = python_blocks("docs/open-inference-protocol.md")
    here = DEFAULT_URL.removeprefix("http://")
    assert here in example
    words = [sys.executable, "-c", example.replace(here, url.removeprefix("http://"))]
    lines = done(words, environment, workspace).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["other", "house", "butterfly", "hay"]


@pytest.mark.parametrize("engine", ["none", "ray", "dask"])
def test_python_in_batches(engine: str, workspace: Path, environment: dict[str, str]) -> None:
    own, *others = python_blocks("docs/batch.md")
    example = next((block for block in others if f"import {engine}" in block), own)
    assert (example is own) == (engine == "none")
    private = environment | {"RAY_USAGE_STATS_ENABLED": "0"}
    ended = done([sys.executable, "-c", example], private, workspace)
    failed_row, done_row = sorted(ended.stdout.splitlines())
    assert re.fullmatch(r"samples/village.jpg \[\d+, \d+, \d+\] (None|nan)", done_row)
    assert re.fullmatch(r"no.jpg (None|nan) no.jpg cannot be read: No such file or directory", failed_row)


def python_blocks(document: str) -> list[str]:
    return [block.text for block in blocks() if (block.document, block.language) == (document, "python")]


JSON_REQUESTS = [
    block.text for block in blocks() if (block.document, block.language) == ("docs/http.md", "json")
]


@pytest.mark.parametrize("document", JSON_REQUESTS)
def test_json_example(document: str, url: str) -> None:
    request: dict[str, Any] = json.loads(document)
    with (ROOT / "samples" / "village.jpg").open("rb") as photograph:
        response = httpx.post(
            f"{url}/v1/segment", files={"image": photograph}, data={"request": document}, timeout=SECONDS
        )
    assert response.status_code == 200, response.text
    answer = response.json()
    names = [item if isinstance(item, str) else item["name"] for item in request.get("classes", [])]
    assert [entry["name"] for entry in answer["classes"]][: len(names)] == names
    assert max(answer["size"].values()) == request.get("output_size", {"long_side": 512})["long_side"]
    asked = set(request.get("outputs", ["rle"]))
    assert asked <= answer.keys() | answer["classes"][0].keys()


def test_blocks_are_of_the_kinds_that_are_run() -> None:
    assert {block.language for block in blocks()} == {"sh", "python", "json", "js"}
