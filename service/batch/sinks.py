"""Where a run's rows go, shard by shard. A finished shard is the checkpoint: it is there whole or not at all.

On a disk a shard is written beside and renamed; in an object store one object is put whole, and where a shard
is several objects, the one that tells of the others comes last.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from service.batch.columns import table
from service.batch.place import OutputPlace
from service.batch.rows import Row
from service.errors import UsageError

FORMATS = ("parquet", "folder", "tar")
LONGEST_NAME = 200  # bytes; file systems take 255, of which suffixes of unfinished files are a part
ABOUT = "ebseg:about"  # in a shard's metadata: `About` as JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a shard tells of itself without being read.

    Attributes:
        ids: sha256 of the ids of its rows, in order.
        rows, errors: all of them, and those that hold an error.
        areas: pixels of each class over all rows.
        pictures: rows that each class was found in.
    """

    ids: str
    rows: int
    errors: int
    areas: tuple[int, ...]
    pictures: tuple[int, ...]

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "About":
        """The opposite of `to_json`; of nothing for whatever that does not make."""
        try:
            values = json.loads(text)
            return cls(
                ids=str(values["ids"]),
                rows=int(values["rows"]),
                errors=int(values["errors"]),
                areas=tuple(map(int, values["areas"])),
                pictures=tuple(map(int, values["pictures"])),
            )
        except (ValueError, TypeError, KeyError):
            return cls(ids="", rows=0, errors=0, areas=(), pictures=())


class Sink(Protocol):
    """Shards of one run."""

    def numbers(self) -> list[int]:
        """Shards that are there, in order."""

    def about(self, shard: int) -> About:
        """What a shard that is there tells of itself; of nothing if it is damaged."""

    def write(self, shard: int, rows: Sequence[Row], about: About) -> None:
        """Puts a shard there, in place of an earlier one.

        Raises:
            OSError: the place does not take it.
        """

    def read(self, shard: int) -> list[Row]:
        """The rows of a finished shard."""


class ParquetSink:
    """`part-000042.parquet`, a row a picture."""

    def __init__(self, store: OutputPlace):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UsageError("--format parquet needs pyarrow: pip install 'ebseg[batch]'") from None
        self._store = store

    def numbers(self) -> list[int]:
        """See `Sink`."""
        return _numbers(self._store.names(""), "parquet")

    def about(self, shard: int) -> About:
        """See `Sink`."""
        import pyarrow.parquet as parquet

        with self._store.opened(f"{_name(shard)}.parquet") as file:
            try:
                metadata = parquet.read_schema(file).metadata or {}
            except ValueError:  # pyarrow's ArrowInvalid is one
                metadata = {}
        return About.from_json(metadata.get(ABOUT.encode(), b""))

    def write(self, shard: int, rows: Sequence[Row], about: About) -> None:
        """See `Sink`."""
        import pyarrow.parquet as parquet

        made = table(rows)
        made = made.replace_schema_metadata({ABOUT: about.to_json()})
        buffer = io.BytesIO()
        parquet.write_table(made, buffer, compression="zstd")
        self._store.put(f"{_name(shard)}.parquet", buffer.getvalue())

    def read(self, shard: int) -> list[Row]:
        """See `Sink`."""
        import pyarrow.parquet as parquet

        content = self._store.get(f"{_name(shard)}.parquet")
        rows: list[Row] = parquet.read_table(io.BytesIO(content or b"")).to_pylist()
        return rows


class FolderSink:
    """`masks/ID.png`, and `rows/part-000042.jsonl` with all else, which is written last."""

    def __init__(self, store: OutputPlace):
        self._store = store

    def numbers(self) -> list[int]:
        """See `Sink`."""
        return _numbers(self._store.names("rows"), "jsonl")

    def about(self, shard: int) -> About:
        """See `Sink`."""
        with self._store.opened(f"rows/{_name(shard)}.jsonl") as file:
            return About.from_json(file.readline())

    def write(self, shard: int, rows: Sequence[Row], about: About) -> None:
        """See `Sink`."""
        lines: list[dict[str, Any]] = [asdict(about)]
        for row in rows:
            if row["label_map"] is not None:
                self._store.put(mask_name(row["id"]), row["label_map"])
            lines.append({name: value for name, value in row.items() if name != "label_map"})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self._store.put(f"rows/{_name(shard)}.jsonl", text.encode())

    def read(self, shard: int) -> list[Row]:
        """See `Sink`."""
        # only \n ends a line: in a name other signs may stand that str.splitlines takes for ends
        lines = (self._store.get(f"rows/{_name(shard)}.jsonl") or b"").split(b"\n")[1:-1]
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row["label_map"] = None if row["error"] is not None else self._store.get(mask_name(row["id"]))
        return rows


class TarSink:
    """`part-000042.tar`, a `.json` and a `.png` a picture, as WebDataset has them."""

    def __init__(self, store: OutputPlace):
        self._store = store

    def numbers(self) -> list[int]:
        """See `Sink`."""
        return _numbers(self._store.names(""), "tar")

    def about(self, shard: int) -> About:
        """See `Sink`."""
        with self._store.opened(f"{_name(shard)}.tar") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    first = tar.next()
            except tarfile.TarError:
                first = None
        return About.from_json("" if first is None else first.pax_headers.get(ABOUT, ""))

    def write(self, shard: int, rows: Sequence[Row], about: About) -> None:
        """See `Sink`."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            headers = {ABOUT: about.to_json()}  # of the first member
            for index, row in enumerate(rows):
                key = f"{shard:06}_{index:06}"
                rest = {name: value for name, value in row.items() if name != "label_map"}
                _add(tar, f"{key}.json", json.dumps(rest, ensure_ascii=False).encode(), headers)
                headers = {}
                if row["label_map"] is not None:
                    _add(tar, f"{key}.png", row["label_map"])
        self._store.put(f"{_name(shard)}.tar", buffer.getvalue())

    def read(self, shard: int) -> list[Row]:
        """See `Sink`."""
        rows: dict[str, Row] = {}
        content = io.BytesIO(self._store.get(f"{_name(shard)}.tar") or b"")
        with tarfile.open(fileobj=content, mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                key, _, form = member.name.partition(".")
                if form == "json":
                    rows[key] = json.loads(file.read()) | {"label_map": None}
                else:
                    rows[key]["label_map"] = file.read()
        return list(rows.values())


def open_sink(store: OutputPlace, form: str) -> Sink:
    """The sink of a format.

    Raises:
        UsageError: what it needs is not installed.
    """
    if form == "parquet":
        return ParquetSink(store)
    return FolderSink(store) if form == "folder" else TarSink(store)


def mask_name(id: str) -> str:
    """Where a picture's label map lies in a folder; no two ids have one place, and none lies outside.

    A part of the id that a path cannot hold as it is has a % in it: `a//b` is `a/%/b`, `../c` is `%2E%2E/c`.
    """
    *folders, last = id.replace("%", "%25").split("/")
    # a folder may not be called as another id's label map
    folders = [f"{name[:-4]}%2Epng" if name.endswith(".png") else name for name in folders]
    return "/".join(["masks", *map(_part, folders), f"{_part(last)}.png"])


def _part(name: str) -> str:
    if not name.strip("."):
        return name.replace(".", "%2E") or "%"
    if len(name.encode()) > LONGEST_NAME or not name.isprintable():
        return f"%{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def _add(tar: tarfile.TarFile, name: str, content: bytes, headers: dict[str, str] | None = None) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.pax_headers = headers or {}
    tar.addfile(member, io.BytesIO(content))


def _name(shard: int) -> str:
    return f"part-{shard:06}"


def _numbers(names: Sequence[str], suffix: str) -> list[int]:
    found = []
    for name in names:
        number = name.removeprefix("part-").removesuffix(f".{suffix}")
        if name == f"part-{number}.{suffix}" and number.isascii() and number.isdigit():
            found.append(int(number))
    return sorted(found)
