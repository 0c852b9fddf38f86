"""`ebseg batch`: every picture has its row, whatever is killed, changed or done again meanwhile.

Most runs ask a service with an engine that needs no model: then a worker starts in a second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import service
from service.batch.rows import Row
from service.batch.sinks import OutputPlace, open_sink
from tests.service.batch.pictures import write_pictures
from tests.service.cli_calls import run
from tests.service.fakes import live
from tests.waiting import LONG_WAIT, wait_until

pytestmark = pytest.mark.usefixtures("own_logging")
ROOT = Path(service.__file__).parents[1]
CLASSES = ("--classes", "house, boat, sky")
COUNT, BROKEN, SHARD = 24, 6, 5  # pictures, of which every sixth is broken; of a shard
Words = list[str]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live() as (address, _):
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    write_pictures(made, COUNT, broken=BROKEN)
    return made


@pytest.fixture(scope="module")
def expected(folder: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of one run that nothing disturbs."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert run(*words(folder, out, url)) == 1
    rows = rows_of(out)
    assert [row["id"] for row in rows] == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.png")
    )
    assert sum(row["error"] is not None for row in rows) == COUNT // BROKEN
    return rows


def words(source: Path, out: Path, url: str, *more: object) -> Words:
    common = ("batch", source, *CLASSES, "--out", out, "--shard-size", SHARD, "--url", url, "--json", *more)
    return [str(word) for word in common]


def rows_of(out: Path) -> list[Row]:
    sink = open_sink(OutputPlace(str(out)), "parquet")
    return [row for shard in sorted(sink.finished()) for row in sink.read(shard)]


def same(rows: list[Row], expected: list[Row]) -> bool:
    """All but the words of errors, which name a request."""
    return [row | {"error": row["error"] is None} for row in rows] == [
        row | {"error": row["error"] is None} for row in expected
    ]


def shards(out: Path) -> int:
    return len(list(out.glob("part-*")))


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return document


def test_models_rows_are_those_of_ebseg_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes with EBSeg-tiny, on one thread each, and a process of one picture after the other."""
    pictures, masks, out = tmp_path / "pictures", tmp_path / "masks", tmp_path / "out"
    write_pictures(pictures, 6, broken=4)
    for path in pictures.glob("deeper/*"):
        path.rename(pictures / path.name)
    common = ("--device", "cpu")
    assert run("segment", pictures, *CLASSES, "--out", masks, *common) == 1
    assert run("batch", pictures, *CLASSES, "--out", out, "--shard-size", 3, "--workers", 2, *common) == 1
    for row in rows_of(out):
        mask = masks / row["id"]
        assert (row["error"] is None) == mask.exists()
        if row["error"] is None:
            assert row["label_map"] == mask.read_bytes()
            with Image.open(mask) as image:
                area = np.bincount(np.asarray(image).ravel(), minlength=4)
            assert row["areas"] == area[1:].tolist()
    assert {path.name for path in out.iterdir()} == {
        *("part-000000.parquet", "part-000001.parquet", "manifest.json"),
        *("summary.json", "summary.png", "sheet.webp"),
    }


def test_what_is_told_and_summed_up(
    folder: Path, url: str, expected: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert run(*words(folder, out, url)) == 1
    errors = COUNT // BROKEN
    line = told(capsys)
    assert (line["rows"], line["errors"], line["segmented"], line["done_before"]) == (COUNT, errors, COUNT, 0)
    assert same(rows_of(out), expected)
    found = json.loads((out / "summary.json").read_text())
    assert (found["rows"], found["errors"], found["shards"]) == (COUNT, errors, -(-COUNT // SHARD))
    good = [row for row in expected if row["error"] is None]
    for index, one in enumerate(found["classes"]):
        assert one["name"] == ["house", "boat", "sky"][index]
        assert one["pixels"] == sum(row["areas"][index] for row in good)
        assert one["pictures"] == sum(row["areas"][index] > 0 for row in good)
    for name in ("summary.png", "sheet.webp"):
        with Image.open(out / name) as image:
            assert min(image.size) > 60
    assert run(*words(folder, out, url)) == 1
    line = told(capsys)
    assert (line["segmented"], line["done_before"], line["errors"]) == (0, COUNT, errors)


def test_killed_at_any_moment_it_goes_on(folder: Path, url: str, expected: list[Row], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ebseg", *words(folder, out, url, "--workers", 2)]
    finished: set[str] = set()
    for kills in range(3):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            known = len(finished)
            wait_until(lambda: shards(out) > known or process.poll() is not None)  # noqa: B023
            time.sleep(0.01 * kills)
            os.killpg(process.pid, signal.SIGKILL)
        made = {path.name for path in out.glob("part-*")}
        assert finished <= made
        finished = made
        assert same(rows_of(out), [row for row in expected if row["id"] in {x["id"] for x in rows_of(out)}])
    assert run(*words(folder, out, url, "--workers", 2)) == 1
    assert same(rows_of(out), expected)


def test_a_worker_that_is_killed_is_replaced(
    folder: Path, url: str, expected: list[Row], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ebseg", *words(folder, out, url)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def workers() -> list[int]:
            running = [Path(f"/proc/{child}/cmdline") for child in children.read_text().split()]
            return [int(path.parent.name) for path in running if b"spawn_main" in path.read_bytes()]

        wait_until(workers)
        os.kill(workers()[0], signal.SIGKILL)
        assert process.wait(LONG_WAIT) == 1
    assert same(rows_of(out), expected)


def test_a_worker_that_dies_again_and_again_ends_the_run(folder: Path, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ebseg", *words(folder, tmp_path / "out", url)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        killed: set[str] = set()
        while process.poll() is None:
            try:
                for child in set(children.read_text().split()) - killed:
                    if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        killed.add(child)
                        os.kill(int(child), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue
        assert process.stderr is not None
        assert "workers die again and again" in process.stderr.read()
        assert process.returncode == 2
    assert len(killed) == 4


def test_shares_make_the_whole(
    folder: Path, url: str, expected: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, url, "--shard", "1/2")) in (0, 1)
    assert sorted(path.name for path in out.glob("part-*")) == ["part-000001.parquet", "part-000003.parquet"]
    assert run(*words(folder, out, url, "--shard", "/2")) == 2
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert run(*words(folder, out, url, "--shard", "/2")) in (0, 1)
    assert same(rows_of(out), expected)


def test_errors_are_done_again(
    url: str, expected: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    write_pictures(pictures, COUNT, broken=BROKEN)
    assert run(*words(pictures, out, url)) == 1
    write_pictures(pictures, COUNT)
    assert run(*words(pictures, out, url)) == 1
    assert told(capsys)["segmented"] == 0
    assert run(*words(pictures, out, url, "--retry-errors")) == 0
    assert told(capsys)["segmented"] == COUNT // BROKEN
    made = rows_of(out)
    assert [row["error"] for row in made] == [None] * COUNT
    for row, former in zip(made, expected, strict=True):
        assert former["error"] is not None or row["label_map"] == former["label_map"]


def test_a_list_that_grows_is_done_where_it_grew(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out, listed = tmp_path / "pictures", tmp_path / "out", tmp_path / "list.txt"
    names = [str(pictures / name) for name in write_pictures(pictures, 12)]
    listed.write_text("\n".join(names[:8]))
    assert run(*words(listed, out, url)) == 0
    listed.write_text("\n".join(names))
    assert run(*words(listed, out, url)) == 0
    assert told(capsys)["segmented"] == 7
    assert [row["id"] for row in rows_of(out)] == names


def test_another_run_is_refused(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, url)) == 1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for changed in (("--shard-size", "6"), ("--format", "tar")):
        assert run(*words(folder, out, url, *changed)) == 2
        assert "holds another run" in capsys.readouterr().err
    assert run("batch", folder, "--classes", "house", "--out", out, "--url", url) == 2
    assert "request was" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_dry_run_writes_nothing(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, url, "--dry-run")) == 0
    line = told(capsys)
    assert (line["pictures"], line["missing"], line["shards"]) == (COUNT, COUNT, 5)
    assert line["expected_seconds"] == pytest.approx(COUNT / line["pictures_per_second"], rel=0.1, abs=0.1)
    assert not out.exists()


def test_a_service_that_is_away(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words(folder, tmp_path / "out", "http://127.0.0.1:9")) == 2
    assert "http://127.0.0.1:9: the connection failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of --classes, --vocabulary and --request"),
        (("--classes", "a", "--vocabulary", "voc-20"), "give one of"),
        (("--request", "no.json"), "cannot be read as JSON"),
        (("--vocabulary", "no-list"), "no built-in vocabulary"),
        (("--classes", "a", "--shard", "4/4"), "K from 0 to N - 1"),
        (("--classes", "a", "--checkpoint", "nowhere"), "nowhere"),
        (("--classes", "a", "--url", "http://x", "--device", "cpu"), "to the service"),
    ],
)
def test_wrong_arguments(
    options: tuple[str, ...], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run("batch", folder, "--out", tmp_path / "out", *options)
        text = capsys.readouterr().err
    except Exception as error:  # of the model package, which `ebseg.main` tells
        code, text = 2, str(error)
    assert code == 2
    assert message in text
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words(tmp_path / "none", tmp_path / "out", url)) == 2
    assert "there is no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
