"""Shards in every form, on a disk and in an object store: whole or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.rows import COLUMNS, Row, failed
from service.batch.sinks import FORMATS, About, OutputPlace, mask_name, open_sink
from service.batch.worker import about_of
from service.errors import UsageError
from tests.service.hot_loading.s3_server import S3, s3_server

ROWS: list[Row] = [
    dict.fromkeys(COLUMNS)
    | {
        "id": f"folder/{index} \N{SNOWMAN}.jpg",
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
    assert sink.finished() == {}
    about = about_of(ROWS, "digest")
    assert about == About(ids="digest", rows=4, errors=1, areas=(3, 0), pictures=(2, 0))
    sink.write(7, ROWS, about)
    assert sink.read(7) == ROWS
    assert sink.finished() == {7: about}
    only_errors = [failed("x", "y")]
    sink.write(7, only_errors, about_of(only_errors, "other"))
    sink.write(12, ROWS, about)
    assert open_sink(OutputPlace(place), form).finished() == {7: about_of(only_errors, "other"), 12: about}
    assert sink.read(7) == only_errors
    if form == "folder":
        assert store.get("masks/folder/1 \N{SNOWMAN}.jpg.png") == ROWS[1]["label_map"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_write_that_fails_leaves_no_shard(form: str, s3: S3, tmp_path: Path) -> None:
    sink = open_sink(OutputPlace(f"s3://bucket/{tmp_path.name}"), form)
    s3.fail()
    try:
        with pytest.raises(OSError):  # noqa: PT011
            sink.write(0, ROWS, about_of(ROWS, "digest"))
    finally:
        s3.fail(False)
    assert sink.finished() == {}
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
        with pytest.raises(OSError, match="No space left"):
            sink.write(0, ROWS, about_of(ROWS, "digest"))
    assert sink.finished() == {}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_names_that_would_lead_out_of_the_output() -> None:
    assert mask_name("../../etc/passwd") == "masks/etc/passwd.png"
    assert mask_name("s3://bucket/a//./b.jpg") == "masks/s3/bucket/a/b.jpg.png"
    assert mask_name("/") == "masks/_.png"


def test_places_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="cannot be written to"):
        OutputPlace("nosuch://place")
