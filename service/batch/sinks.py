"""Where a run's rows go, shard by shard. A finished shard is the checkpoint: it is there whole or not at all.

On a disk a shard is written beside and renamed; in an object store one object is put whole, and where a shard
is several objects, the one that tells of the others comes last.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from model.storage.files import replacing
from service.batch.columns import table
from service.batch.rows import Row
from service.errors import UsageError

FORMATS = ("parquet", "folder", "tar")
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

    def finished(self) -> dict[int, About]:
        """Shards that are there."""

    def write(self, shard: int, rows: Sequence[Row], about: About) -> None:
        """Puts a shard there, in place of an earlier one.

        Raises:
            OSError: the place does not take it.
        """

    def read(self, shard: int) -> list[Row]:
        """The rows of a finished shard."""


class OutputPlace:
    """A folder, or a place in an object store."""

    def __init__(self, url: str):
        from fsspec.core import url_to_fs

        try:
            self.fs, root = url_to_fs(url)
            self.root = str(root).rstrip("/")
            self._local = "file" in self.fs.protocol or self.fs.protocol == "file"
        except (OSError, ValueError, ImportError) as error:
            raise UsageError(f"{url} cannot be written to: {error}") from None

    def names(self, folder: str) -> list[str]:
        """Of the files of a folder."""
        self.fs.invalidate_cache()
        try:
            entries = self.fs.ls(f"{self.root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return [str(entry["name"]).rsplit("/", 1)[-1] for entry in entries if entry["type"] != "directory"]

    def get(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            content = self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return bytes(content)

    def put(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        path = f"{self.root}/{name}"
        if not self._local:
            self.fs.pipe_file(path, content)
            return
        self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        with replacing(Path(path)) as partial:
            partial.write_bytes(content)


class ParquetSink:
    """`part-000042.parquet`, a row a picture."""

    def __init__(self, store: OutputPlace):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UsageError("--format parquet needs pyarrow: pip install 'ebseg[batch]'") from None
        self._store = store

    def finished(self) -> dict[int, About]:
        """See `Sink`."""
        import pyarrow.parquet as parquet

        found = {}
        for shard in _numbers(self._store.names(""), "parquet"):
            with self._store.fs.open(f"{self._store.root}/{_name(shard)}.parquet", "rb") as file:
                about = (parquet.read_schema(file).metadata or {}).get(ABOUT.encode(), b"")
                found[shard] = About.from_json(about)
        return found

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

    def finished(self) -> dict[int, About]:
        """See `Sink`."""
        found = {}
        for shard in _numbers(self._store.names("rows"), "jsonl"):
            with self._store.fs.open(f"{self._store.root}/rows/{_name(shard)}.jsonl", "rb") as file:
                found[shard] = About.from_json(file.readline())
        return found

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
        lines = (self._store.get(f"rows/{_name(shard)}.jsonl") or b"").decode().splitlines()[1:]
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row["label_map"] = None if row["error"] is not None else self._store.get(mask_name(row["id"]))
        return rows


class TarSink:
    """`part-000042.tar`, a `.json` and a `.png` a picture, as WebDataset has them."""

    def __init__(self, store: OutputPlace):
        self._store = store

    def finished(self) -> dict[int, About]:
        """See `Sink`."""
        found = {}
        for shard in _numbers(self._store.names(""), "tar"):
            place = f"{self._store.root}/{_name(shard)}.tar"
            with self._store.fs.open(place, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                first = tar.next()
                headers = {} if first is None else first.pax_headers
                found[shard] = About.from_json(headers.get(ABOUT, ""))
        return found

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
    """Where a picture's label map lies in a folder: its path without what would lead out of it."""
    parts = [part for part in id.replace("://", "/").split("/") if part not in ("", ".", "..")]
    return "masks/" + "/".join(parts or ["_"]) + ".png"


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
