"""`ebseg batch`: every picture has its row, whatever is killed, changed or done again meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from PIL import Image

from service.batch.place import OutputPlace
from service.batch.plan import TWICE, BatchPlan, pin
from service.batch.rows import Row
from service.batch.sinks import open_sink
from service.errors import UsageError
from tests.service.batch.pictures import write_pictures
from tests.service.batch.runs import (
    BROKEN,
    CLASSES,
    COUNT,
    ROOT,
    SHARD,
    last_line,
    plan_of,
    rows_of,
    run_here,
    same,
    words,
)
from tests.service.cli_calls import run
from tests.service.fakes import INFO
from tests.waiting import LONG_WAIT, WAIT, wait_until


def shards(out: Path) -> int:
    return len(list(out.glob("part-*")))


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
    line = last_line(capsys)
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
    assert run(*words(folder, out, url, "--tolerate-errors")) == 0
    line = last_line(capsys)
    assert (line["segmented"], line["done_before"], line["errors"]) == (0, COUNT, errors)


def test_killed_at_any_moment_it_goes_on(folder: Path, url: str, expected: list[Row], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ebseg", *words(folder, out, url, "--workers", 2)]
    finished: set[str] = set()
    for kills in range(2):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            known = len(finished)
            wait_until(lambda: shards(out) > known or process.poll() is not None)  # noqa: B023
            time.sleep(0.02 * kills)
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
        assert "workers die again and again before they began" in process.stderr.read()
        assert process.returncode == 1
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
    assert last_line(capsys)["segmented"] == 0
    assert run(*words(pictures, out, url, "--retry-errors")) == 0
    assert last_line(capsys)["segmented"] == COUNT // BROKEN
    made = rows_of(out)
    assert [row["error"] for row in made] == [None] * COUNT
    for row, former in zip(made, expected, strict=True):
        assert former["error"] is not None or row["label_map"] == former["label_map"]


def test_errors_of_another_list_are_not_kept(url: str, tmp_path: Path) -> None:
    """Rows of a shard whose list has changed meanwhile are of other pictures, errors or none."""
    pictures, listed = tmp_path / "pictures", tmp_path / "list.txt"
    names = [str(pictures / name) for name in write_pictures(pictures, 10, broken=5)]
    for folder, lists in (("again", [names[:5], names[5:]]), ("at once", [names[5:]])):
        for lines in lists:
            listed.write_text("\n".join(lines))
            assert run(*words(listed, tmp_path / folder, url, "--retry-errors")) == (lines == names[:5])
    made = rows_of(tmp_path / "again")
    assert [row["id"] for row in made] == names[5:]
    assert same(made, rows_of(tmp_path / "at once"))


def test_a_list_that_grows_is_done_where_it_grew(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out, listed = tmp_path / "pictures", tmp_path / "out", tmp_path / "list.txt"
    names = [str(pictures / name) for name in write_pictures(pictures, 12)]
    listed.write_text("\n".join(names[:8]))
    assert run(*words(listed, out, url)) == 0
    listed.write_text("\n".join(names))
    assert run(*words(listed, out, url)) == 0
    assert last_line(capsys)["segmented"] == 7
    assert [row["id"] for row in rows_of(out)] == names


def test_a_list_that_has_become_shorter(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards of images that are listed no more are neither counted nor passed over in silence."""
    pictures, out, listed = tmp_path / "pictures", tmp_path / "out", tmp_path / "list.txt"
    names = [str(pictures / name) for name in write_pictures(pictures, 4 * SHARD)]
    listed.write_text("\n".join(names))
    for share in ((0, 2), (1, 2)):
        run_here(plan_of(listed, str(out), url, share=share), open_sink(OutputPlace(str(out)), "parquet"))
    listed.write_text("\n".join(names[:SHARD]))
    assert run(*words(listed, out, url)) == 1
    told = capsys.readouterr()
    assert (json.loads(told.out)["rows"], json.loads(told.out)["done_before"]) == (SHARD, SHARD)
    text = f"{out} still holds 3 shards past the end of the input, which was longer once: remove those"
    assert f"{text} numbered 1, 2, 3\n" in told.err
    assert json.loads((out / "summary.json").read_text())["rows"] == SHARD
    assert run(*words(listed, out, url, "--shard", "0/2")) == 1
    assert "holds 1 shards" in capsys.readouterr().err  # of its share
    for number in (1, 2, 3):
        (out / f"part-{number:06}.parquet").unlink()
    assert run(*words(listed, out, url)) == 0


def test_a_disk_that_takes_no_more(url: str, tmp_path: Path, expected: list[Row], folder: Path) -> None:
    """Files of its own process and its workers may have 2 kB each: the manifest fits, and no shard does."""
    out = tmp_path / "out"
    small = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    command = [sys.executable, "-B", "-c", small + "from ebseg import main; sys.exit(main(sys.argv[1:]))"]
    ended = subprocess.run(
        [*command, *words(folder, out, url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "File too large" in ended.stderr
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    run_here(plan_of(folder, str(out), url), open_sink(OutputPlace(str(out)), "parquet"))
    assert same(rows_of(out), expected)


class LateEyes(OutputPlace):
    """A place whose manifest is first looked for by all at once, before any has written one."""

    barrier = Barrier(8)

    def get(self, name: str) -> bytes | None:
        there = super().get(name)
        if there is None:
            self.barrier.wait(WAIT)
        return there


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_of_runs_that_begin_at_once_one_goes_on(kind: str, url: str, tmp_path: Path) -> None:
    """They differ, and each has seen that nobody was there."""
    place = str(tmp_path / "out") if kind == "disk" else f"memory://{tmp_path.name}"
    plans = [replace(plan_of(tmp_path / "in", place, url), shard_size=1 + index) for index in range(8)]

    def refusal(plan: BatchPlan) -> str:
        try:
            pin(LateEyes(place), plan.pinned("tiny/1", "digest"))
        except UsageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        refusals = sorted(pool.map(refusal, plans))
    assert refusals[0] == ""
    assert all("holds another run (shard_size was" in text for text in refusals[1:])
    assert OutputPlace(place).names("") == ["manifest.json"]


def test_another_run_is_refused(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, url)) == 1
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for changed in (("--shard-size", "6"), ("--format", "tar")):
        assert run(*words(folder, out, url, *changed)) == 2
        assert "holds another run" in capsys.readouterr().err
    pinned = json.loads((out / "manifest.json").read_text())
    served = {name: pinned["request"][name] for name in ("model", "version")}
    assert (served, pinned["checkpoint"]) == ({"model": INFO.name, "version": INFO.version}, INFO.digest)
    assert run("batch", folder, "--classes", "house", "--out", out, "--url", url) == 2
    assert "request was" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_dry_run_writes_nothing(
    folder: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, url, "--dry-run")) == 0
    line = last_line(capsys)
    assert (line["pictures"], line["missing"], line["shards"]) == (COUNT, COUNT, 5)
    assert line["expected_seconds"] == pytest.approx(COUNT / line["pictures_per_second"], rel=0.1, abs=0.1)
    assert not out.exists()


def test_one_mask_belongs_to_one_picture(url: str, tmp_path: Path) -> None:
    """Of pictures with one id the later ones have errors, in their shard, in another one and in a share."""
    listed, made = tmp_path / "list.csv", {}
    names = write_pictures(tmp_path / "pictures", 2 * SHARD)
    called = ["same", *map(str, range(1, SHARD - 1)), "same", "same", *map(str, range(SHARD, 2 * SHARD - 1))]
    rows = [f"{id},{tmp_path / 'pictures' / name}" for id, name in zip(called, names, strict=True)]
    listed.write_text("\n".join(["id,path", *rows]))
    for form in ("folder", "parquet"):
        out = str(tmp_path / form)
        for share in ((1, 2), (0, 1)):
            plan = plan_of(listed, out, url, form=form, share=share)
            run_here(plan, open_sink(OutputPlace(out), form))
        made[form] = rows_of(out, form)
    again = [index for index, row in enumerate(made["folder"]) if row["error"] is not None]
    assert again == [SHARD - 1, SHARD]
    assert {made["folder"][index]["error"] for index in again} == {TWICE}
    assert [row["id"] for row in made["parquet"]] == called  # whose rows need no files of their own
    for index, (row, other) in enumerate(zip(made["folder"], made["parquet"], strict=True)):
        assert other["error"] is None
        assert index in again or row == other
    mask = tmp_path / "folder" / "masks" / "same.png"
    assert mask.read_bytes() == made["parquet"][0]["label_map"]
