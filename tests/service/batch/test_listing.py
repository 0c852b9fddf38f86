"""What an input lists, in which order, and what is said of one that cannot be."""

import csv
import io
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from service.batch.listing import items
from service.batch.plan import share
from service.batch.reading import UnreadableError, content_of
from service.batch.rows import failed, row_id
from service.batch.seen import SeenIds
from service.errors import UsageError
from tests.service.batch.pictures import write_pictures
from tests.service.hot_loading.s3_server import S3, s3_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    write_pictures(made, 7)
    (made / ".hidden").mkdir()
    (made / ".hidden" / "a.png").write_bytes(b"x")
    (made / "notes.md").write_text("no image")
    (made / "UPPER.JPG").write_bytes(b"x")
    return made


def ids(source: object) -> list[str]:
    return [item["id"] for item in items(str(source))]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def test_folder(folder: Path) -> None:
    expected = ["UPPER.JPG", "deeper/p0000.png", "deeper/p0003.png", "deeper/p0006.png"]
    expected += ["p0001.png", "p0002.png", "p0004.png", "p0005.png"]
    assert ids(folder) == expected
    assert ids(f"{folder}/") == ids(folder.as_uri()) == expected
    assert all(Path(item["path"]).is_file() for item in items(str(folder)))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """Their ids can be written, their paths opened."""
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / name, name)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    (tmp_path / "list.csv").write_bytes(b"path\ncaf\xe9.png\n")
    for source in (tmp_path, *(tmp_path / name for name in ("*.png", "*.tar", "list.txt", "list.csv"))):
        (item,) = items(str(source))
        assert item["id"].endswith(r"caf\xe9.png")
        assert content_of(item) == b"x"
    row = failed(row_id({"path": name}, 0), UnreadableError(f"{name} at https://host/x?token=hidden is away"))
    assert (row["id"], row["error"]) == (r"caf\xe9.png", r"caf\xe9.png at https://host/x is away")
    assert row_id({"id": "\ud800"}, 0) == r"\ud800"


def test_folders_of_an_enemy(tmp_path: Path) -> None:
    """Links that go round, a pipe, a device, a folder and nothing under names of pictures; names of URLs."""
    good, odd = tmp_path / "deeper" / "\N{SNOWMAN} a::b.png", ("dir.png", "gone.png", "null.png", "pipe.png")
    good.parent.mkdir()
    good.write_bytes(b"x")
    for name in ("round", "deeper/up", "deeper/again"):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / "itself.png").symlink_to(tmp_path / "itself.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "null.png").symlink_to("/dev/zero")
    (tmp_path / "dir.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    listed = {item["id"]: item for item in items(str(tmp_path))}
    assert set(listed) <= {good.relative_to(tmp_path).as_posix(), *odd, "itself.png"}
    assert content_of(listed[good.relative_to(tmp_path).as_posix()]) == b"x"
    for name in (*odd, "itself.png"):
        with pytest.raises(UnreadableError, match="cannot be read"):
            content_of({"path": str(tmp_path / name)})


def test_a_folder_that_changes_while_it_is_listed(tmp_path: Path) -> None:
    """A folder that has gone when its turn comes is not there; an image that has gone costs its row."""
    for name in ("a/1.png", "b/2.png", "c/3.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = items(str(tmp_path))
    assert next(listed)["id"] == "a/1.png"
    shutil.rmtree(tmp_path / "b")
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"no folder")
    (tmp_path / "d.png").unlink()
    (last,) = listed
    with pytest.raises(UnreadableError, match=r"d\.png cannot be read: No such file"):
        content_of(last)


def test_pattern_and_single_picture(folder: Path) -> None:
    assert [Path(one).name for one in ids(folder / "*" / "*.png")] == ["p0000.png", "p0003.png", "p0006.png"]
    assert ids(folder / "p0001.png") == ["p0001.png"]


def test_lists(folder: Path) -> None:
    names = ["p0001.png", "deeper/p0000.png", str(folder / "p0002.png")]
    (folder / "list.txt").write_text(
        "\ufeff" + "\n".join([names[0], "", *names[1:]]) + "\r\n", encoding="utf-8"
    )
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "path", "x"], ["a,b", names[0], 1], ["", names[1], 2], ["c", names[2], 3]])
    table = pyarrow.table({"path": names, "id": ["1", "2", "3"], "other": [1, 2, 3]})
    pyarrow.parquet.write_table(table, folder / "list.parquet")
    contents = [(folder / name).read_bytes() for name in names]
    for name, expected in (("txt", names), ("csv", ["a,b", names[1], "c"]), ("parquet", ["1", "2", "3"])):
        assert ids(folder / f"list.{name}") == expected
        assert [content_of(item) for item in items(str(folder / f"list.{name}"))] == contents
    table = pyarrow.table({"bytes": contents})
    pyarrow.parquet.write_table(table, folder / "bytes.parquet")
    assert ids(folder / "bytes.parquet") == ["0", "1", "2"]
    assert [content_of(item) for item in items(str(folder / "bytes.parquet"))] == contents


def test_tars(folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"shard-{number}.tar", "w") as tar:
            for name in ("deeper/p0000.png", "notes.md", "p0001.png"):
                tar.add(folder / name, name)
    expected = [
        f"shard-{number}.tar/{name}" for number in (0, 1) for name in ("deeper/p0000.png", "p0001.png")
    ]
    found = list(items(str(tmp_path / "shard-*.tar")))
    assert [item["id"] for item in found] == expected
    assert [content_of(item) for item in found[:2]] == [
        (folder / "deeper/p0000.png").read_bytes(),
        (folder / "p0001.png").read_bytes(),
    ]
    cut = tmp_path / "shard-0.tar"
    cut.write_bytes(cut.read_bytes()[: found[1]["offset"] + 10])
    with pytest.raises(UnreadableError, match="cut short: 10 of"):
        content_of(found[1])


def test_ids_of_several_files_are_distinct(folder: Path, tmp_path: Path) -> None:
    """Tars of one name in two folders, and tables without ids."""
    table = pyarrow.table({"bytes": [b"x", b"y"]})
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with tarfile.open(tmp_path / name / "x.tar", "w") as tar:
            tar.add(folder / "p0001.png", "p.png")
        pyarrow.parquet.write_table(table, tmp_path / name / "x.parquet")
    assert ids(tmp_path / "*" / "x.tar") == ["a/x.tar/p.png", "b/x.tar/p.png"]
    expected = [f"{name}/x.parquet/{number}" for name in ("a", "b") for number in (0, 1)]
    assert ids(tmp_path / "?" / "x.parquet") == expected


def test_large_files_are_not_read(folder: Path, s3: S3) -> None:
    """Of a disk, a tar, a store, a stream that names no size, and bytes at hand."""
    import fsspec

    large, most = folder / "large.png", 5 << 20
    with large.open("wb") as file:
        file.truncate(1 << 40)  # of holes
    fsspec.filesystem("s3").pipe_file("bucket/large/a.png", bytes(most + 1))
    fsspec.filesystem("memory").pipe_file("/large/a.png", bytes(most + 1))
    rows: list[dict[str, Any]] = [
        {"path": str(large)},
        {"path": large.as_uri()},
        {"path": str(large), "offset": 3, "size": most + 1},
        {"path": "s3://bucket/large/a.png"},
        {"path": "memory://large/a.png"},
        {"bytes": bytes(most + 1)},
    ]
    for size in (float("nan"), float("inf"), "12 kB", -1):
        with pytest.raises(UnreadableError, match=r"whole numbers|0 or more"):
            content_of({"path": str(large), "offset": 0, "size": size}, most)
    for row in rows:
        with pytest.raises(UnreadableError, match=r"too large for an image: more than 5 MiB; a higher --max"):
            content_of(row, most)
    for name in ("s3://bucket", "memory:/"):
        assert content_of({"path": f"{name}/large/a.png"}, most + 1) == bytes(most + 1)
    assert content_of({"path": str(large), "offset": 3, "size": most}, most) == bytes(most)


def test_seen_ids() -> None:
    """As a set tells it, however they are cut into calls, and in eight bytes each."""
    random = Random(0)
    names, seen, known = [f"{random.randrange(3000)}" for _ in range(5000)], SeenIds(), set[str]()
    while names:
        part = [names.pop() for _ in range(min(len(names), random.randrange(200)))]
        expected = [at for at, name in enumerate(part) if name in known or name in part[:at]]
        assert seen.again(part) == expected
        known |= set(part)
    assert sum(run.nbytes for run in seen._runs) == 8 * len(known)
    assert len(seen._runs) < 12


def test_object_store(s3: S3, folder: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("s3")
    fs.put(str(folder), "bucket/pictures", recursive=True)
    found = list(items("s3://bucket/pictures"))
    assert [item["id"] for item in found] == ids(folder)
    assert content_of(found[1]) == (folder / "deeper/p0000.png").read_bytes()
    fs.pipe_file("bucket/pictures/list.txt", b"p0001.png\n")
    (listed,) = items("s3://bucket/pictures/list.txt")
    assert content_of(listed) == (folder / "p0001.png").read_bytes()


def test_a_store_that_fails_may_answer_later(s3: S3) -> None:
    """It is no wrong input, for which a Job would be given up."""
    for source in ("s3://bucket/photos", "s3://bucket/list.txt"):
        s3.fail()
        try:
            with pytest.raises(OSError, match="cannot be listed now"):
                ids(source)
        finally:
            s3.fail(False)
        with pytest.raises(UsageError, match="there is no"):
            ids(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, "there is no"),
        ("no*.png", None, "no file is like"),
        ("list.csv", b"a,b\n1,2\n", "names no column `path`"),
        ("list.txt", b"\n", "holds no images"),
        ("list.txt", "a.png\n".encode("utf-16"), "it has zero bytes; a list is UTF-8"),
        ("list.csv", "id,path\na,b.png\n".encode("utf-16"), "it has zero bytes; a list is UTF-8"),
        ("list.parquet", b"PAR1", "cannot be listed"),
        ("a.tar", b"x" * 2000, "is no tar"),
        ("a.zip", b"x", "is no input"),
    ],
)
def test_inputs_that_cannot_be(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        ids(tmp_path / name)


def test_no_scheme_of_that_name() -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        ids("nosuch://bucket/pictures")


def test_a_million_paths_take_no_memory(tmp_path: Path) -> None:
    """Measured as what is allocated between the thousandth path and the last."""
    listed = tmp_path / "list.txt"
    with listed.open("w") as file:
        for index in range(100_000):
            file.write(f"folder/{index:07}.jpg\n")
    tracemalloc.start()
    try:
        counted = items(str(listed))
        for _ in range(1000):
            next(counted)
        before = tracemalloc.get_traced_memory()[0]
        assert sum(1 for _ in counted) == 99_000
        assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    finally:
        tracemalloc.stop()


def test_shares() -> None:
    assert share("3/64") == (3, 64)
    for wrong in ("64/64", "3", "a/b", "-1/4", "1/0"):
        with pytest.raises(UsageError, match="K from 0 to N - 1"):
            share(wrong)


def test_a_large_member_is_read_alone(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, size in (("a.png", 1 << 20), ("b.png", 3)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(b"y" * size))
    assert content_of(list(items(str(tmp_path / "a.tar")))[1]) == b"yyy"
