"""The pictures of an input, one after the other in a fixed order, however many there are.

An input is a folder (with all folders within), a pattern, a list (`.txt`, `.csv`, `.parquet`), or a tar as
WebDataset has it; each may be an fsspec URL, and tars and lists may be patterns too. Nothing here holds more
than one folder's names.
"""

import csv
import io
import os
import re
import tarfile
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from model.pictures.suffixes import PICTURES, TAKEN
from model.storage.versions import is_refusal
from service.batch.rows import printable
from service.errors import UsageError

Item = dict[str, Any]
"""A row for `BatchSegmenter`: `id`, and `path` (with `offset` and `size` for a tar's member) or `bytes`."""

LISTS = (".txt", ".csv", ".parquet")
TARS = (".tar",)
PATTERN = frozenset("*?[")
TEXT: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape"}  # as names are in a listing


def items(source: str) -> Generator[Item, None, None]:
    """The pictures of an input.

    Raises:
        UsageError: there is no such input, it cannot be read, or it holds no pictures.
        OSError: its store fails, which may pass.
    """
    count = 0
    for item in _items(source):
        count += 1
        item["id"] = printable(str(item["id"]))
        yield item
    if not count:
        raise UsageError(f"{source} holds no images; they end in {', '.join(TAKEN)}")


def is_within(out: str, source: str, files: Sequence[str]) -> bool:
    """Whether what is written to an output would be input the next time.

    Args:
        out, source: of a run.
        files: that may lie in an output.
    """
    from fsspec.core import url_to_fs
    from fsspec.utils import glob_translate

    try:
        (fs, folder), (other, place) = url_to_fs(source), url_to_fs(out)
    except (OSError, ValueError, ImportError):
        return False  # whoever lists or writes says what is wrong with it
    if type(fs) is not type(other):
        return False
    if _is_local(fs):
        folder, place = os.path.realpath(folder), os.path.realpath(place)
    if PATTERN & set(folder):
        matches = re.compile(glob_translate(folder)).fullmatch
        return any(matches(f"{place.rstrip('/')}/{name}") is not None for name in files)
    return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _items(source: str) -> Iterator[Item]:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(source)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"{source} cannot be listed: {error}") from None
    try:
        yield from _listed(fs, path, source)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no {source}") from None
    except Exception as error:  # file systems raise what their libraries raise
        if _is_local(fs) or isinstance(error, ValueError | ImportError) or is_refusal(error):
            raise UsageError(f"{source} cannot be listed: {error}") from None
        raise OSError(f"{source} cannot be listed now: {error}") from error


def _listed(fs: Any, path: str, source: str) -> Iterator[Item]:
    fixed = 0
    if PATTERN & set(path):
        fixed = len(_fixed(path))  # what is hidden below is left out, and files are called by the rest
        names = sorted(name for name in fs.glob(path) if "/." not in f"/{name[fixed:]}")
        if not names:
            raise UsageError(f"no file is like {source}")
    # a store that fails is no folder for `isdir`, and tells so to `info` only
    elif fs.isdir(path) or fs.info(path)["type"] == "directory":
        yield from _folder(fs, path.rstrip("/"), "", ())
        return
    else:
        names = [path]
    for name in names:
        yield from _file(fs, name, inside=f"{name[fixed:]}/" if len(names) > 1 else "")


def _fixed(pattern: str) -> str:
    """The folder of a pattern before its first wildcard."""
    first = min(pattern.index(sign) for sign in PATTERN & set(pattern))
    return pattern[: pattern.rfind("/", 0, first) + 1]


def _folder(fs: Any, root: str, inside: str, above: tuple[str, ...]) -> Iterator[Item]:
    """Pictures of a folder and those within, names in order; what begins with a dot is left out.

    So is a link to a folder that it lies in itself: all that is there has been found.
    """
    place = f"{root}/{inside}".rstrip("/") or "/"
    own = os.path.realpath(place) if _is_local(fs) else place
    if own in above:
        return
    try:
        entries = fs.ls(place, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        if not above:
            raise
        return  # it has gone since the folder that it was in was listed
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        name = str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]
        if name.startswith("."):
            continue
        relative = f"{inside}/{name}" if inside else name
        if entry["type"] == "directory":
            yield from _folder(fs, root, relative, (*above, own))
        elif name.lower().endswith(PICTURES):
            yield {"id": relative, "path": _full(fs, f"{root}/{relative}")}


def _file(fs: Any, path: str, *, inside: str) -> Iterator[Item]:
    """Its pictures; ids that are of this file alone begin with `inside`, "" where it is the only one."""
    name = path.lower()
    if name.endswith(".parquet"):
        yield from _parquet(fs, path, inside)
    elif name.endswith(".csv"):
        yield from _csv(fs, path)
    elif name.endswith(".txt"):
        yield from _text(fs, path)
    elif name.endswith(TARS):
        yield from _tar(fs, path, inside)
    elif name.endswith(PICTURES):
        yield {"id": path if inside else path.rsplit("/", 1)[-1], "path": _full(fs, path)}
    elif not inside:
        raise UsageError(
            f"{path} is no input: a folder, a list ({', '.join(LISTS)}), a tar, or an image "
            f"({', '.join(TAKEN)})"
        )


def _text(fs: Any, path: str) -> Iterator[Item]:
    with fs.open(path, "rb") as file, io.TextIOWrapper(file, **TEXT) as lines:
        for line in map(_checked, lines):
            named = line.strip()
            if named:
                yield {"id": named, "path": _beside(fs, path, named)}


def _checked(line: str) -> str:
    """Raises ValueError for a line that no path can be in."""
    if "\0" in line:
        raise ValueError("it has zero bytes; a list is UTF-8")
    return line


def _csv(fs: Any, path: str) -> Iterator[Item]:
    with fs.open(path, "rb") as file, io.TextIOWrapper(file, newline="", **TEXT) as lines:
        reader = csv.DictReader(map(_checked, lines))
        if "path" not in (reader.fieldnames or ()):
            raise UsageError(f"{path}: the first line names no column `path`; `id` may be another one")
        for row in reader:
            if row["path"]:
                yield {"id": row.get("id") or row["path"], "path": _beside(fs, path, row["path"])}


def _parquet(fs: Any, path: str, inside: str) -> Iterator[Item]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(f"{path} needs pyarrow: pip install 'ebseg[batch]'") from None
    with fs.open(path, "rb") as file:
        lines = parquet.ParquetFile(file)
        columns = [name for name in ("id", "path", "bytes") if name in lines.schema_arrow.names]
        if not {"path", "bytes"} & set(columns):
            raise UsageError(f"{path} has neither a column `path` nor `bytes`")
        number = 0
        for batch in lines.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                item = {name: value for name, value in row.items() if value is not None}
                if "path" in item:
                    item = {"id": item["path"]} | item | {"path": _beside(fs, path, item["path"])}
                yield {"id": f"{inside}{number}"} | item
                number += 1


def _tar(fs: Any, path: str, inside: str) -> Iterator[Item]:
    """Members by where they lie, so that whoever reads them needs no list of the others."""
    full = _full(fs, path)
    with fs.open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    if member.isfile() and member.name.lower().endswith(PICTURES):
                        id = f"{inside}{member.name}"
                        yield {"id": id, "path": full, "offset": member.offset_data, "size": member.size}
                    tar.members = []  # type: ignore[attr-defined]  # it would keep them all
        except tarfile.TarError as error:
            raise UsageError(f"{path} is no tar, or is damaged: {error}") from None


def _beside(fs: Any, lists: str, named: str) -> str:
    """A path of a list: as it is if it is a URL or absolute, else beside the list."""
    if "://" in named or os.path.isabs(named):
        return named
    folder = lists.rsplit("/", 1)[0] if "/" in lists else "."
    return _full(fs, f"{folder}/{named}")


def _full(fs: Any, path: str) -> str:
    """A path with what opens it anywhere."""
    return path if _is_local(fs) else str(fs.unstrip_protocol(path))


def _is_local(fs: Any) -> bool:
    return fs.protocol in ("file", "local") or "file" in fs.protocol
