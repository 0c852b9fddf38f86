"""Shards in every form, on a disk and in an object store: whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.finish import finish
from service.batch.place import OutputPlace
from service.batch.rows import COLUMNS, Row, failed
from service.batch.run import RunResult
from service.batch.sinks import FORMATS, About, mask_name, open_sink
from service.batch.worker import about_of
from service.errors import UsageError
from tests.service.hot_loading.s3_server import S3, s3_server

ROWS: list[Row] = [
    dict.fromkeys(COLUMNS)
    | {
        "id": f"folder/{index} \N{SNOWMAN}\n\x85\N{LINE SEPARATOR}.jpg",
        "width": 4,
        "height": 3,
        "label_map": bytes([137, index, 0, 0]),
        "classes": ["a", "b"],
        "areas": [index, 0],
        "confidence": [0.5, 0.0],
    }
    for index in range(3)
] + [failed("broken", "it is\nbroken")]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "new" / "out")
    request.getfixturevalue("s3")
    return f"s3://bucket/{tmp_path.name}"


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_read(form: str, place: str) -> None:
    store = OutputPlace(place)
    sink = open_sink(store, form)
    assert sink.numbers() == []
    about = about_of(ROWS, "digest")
    assert about == About(ids="digest", rows=4, errors=1, areas=(3, 0), pictures=(2, 0))
    sink.write(7, ROWS, about)
    assert sink.read(7) == ROWS
    assert (sink.numbers(), sink.about(7)) == ([7], about)
    only_errors = [failed("x", "y")]
    sink.write(7, only_errors, about_of(only_errors, "other"))
    sink.write(12, ROWS, about)
    again = open_sink(OutputPlace(place), form)
    assert {number: again.about(number) for number in again.numbers()} == {
        7: about_of(only_errors, "other"),
        12: about,
    }
    assert sink.read(7) == only_errors
    if form == "folder":
        assert store.get(mask_name(ROWS[1]["id"])) == ROWS[1]["label_map"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_write_that_fails_leaves_no_shard(form: str, s3: S3, tmp_path: Path) -> None:
    sink = open_sink(OutputPlace(f"s3://bucket/{tmp_path.name}"), form)
    s3.fail()
    try:
        with pytest.raises(OSError):  # noqa: PT011
            sink.write(0, ROWS, about_of(ROWS, "digest"))
    finally:
        s3.fail(False)
    assert sink.numbers() == []
    sink.write(0, ROWS, about_of(ROWS, "digest"))
    assert sink.read(0) == ROWS


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_no_shard(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = open_sink(OutputPlace(str(tmp_path)), form)

    def full(self: Path, content: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
            sink.write(0, ROWS, about_of(ROWS, "digest"))
    assert sink.numbers() == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_shard_counts_as_none(form: str, tmp_path: Path) -> None:
    sink = open_sink(OutputPlace(str(tmp_path)), form)
    sink.write(3, ROWS, about_of(ROWS, "digest"))
    (shard,) = tmp_path.rglob("part-*")
    shard.write_bytes(shard.read_bytes()[:20])
    assert (sink.numbers(), sink.about(3).ids) == ([3], "")


def test_a_summary_needs_no_label_maps(tmp_path: Path) -> None:
    """Those of a folder may have been moved away."""
    store = OutputPlace(str(tmp_path))
    sink = open_sink(store, "folder")
    sink.write(0, ROWS, about_of(ROWS, "digest"))
    shutil.rmtree(tmp_path / "masks")
    finish(store, sink, RunResult(rows=4, errors=1))
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["rows"], [one["pixels"] for one in found["classes"]]) == (4, [3, 0])


def test_names_of_label_maps() -> None:
    """Each inside, each at a place of its own, and none where another one needs a folder."""
    assert mask_name("../../etc/passwd") == "masks/%2E%2E/%2E%2E/etc/passwd.png"
    assert mask_name("deeper/a b.jpg") == "masks/deeper/a b.jpg.png"
    assert mask_name("s3://bucket/b.jpg") == "masks/s3:/%/bucket/b.jpg.png"
    ids = ["", "/", "//", ".", "..", "...", "%", "%25", "%2E", "a", "/a", "./a", "../a", "a/", "a/.", "%/a"]
    ids += [
        "s3://a/b",
        "s3:/a/b",
        "s3/a/b",
        "a.png",
        "a.png/b",
        "a%2Epng/b",
        "x" * 300,
        "x" * 301,
        "a\0",
        "a\n",
    ]
    names = {mask_name(id) for id in ids}
    assert len(names) == len(ids)
    for name in names:
        parts = name.split("/")
        assert parts[0] == "masks"
        assert not {"", ".", ".."} & set(parts)
        assert all(len(part.encode()) < 250 for part in parts)
        assert not any("/".join(parts[:count]) in names for count in range(1, len(parts)))


def test_places_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="cannot be written to"):
        OutputPlace("nosuch://place")
