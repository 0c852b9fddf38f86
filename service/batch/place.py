"""A place that a run writes to: a folder, or an fsspec URL of an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from model.storage.files import replacing
from model.urls import shown
from service.errors import UsageError


class OutputPlace:
    """A folder, or a place in an object store, whose every fault is an OSError."""

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
            with self._faults():
                entries = self.fs.ls(f"{self.root}/{folder}".rstrip("/"), detail=True)
        except FileNotFoundError:
            return []
        return [str(entry["name"]).rsplit("/", 1)[-1] for entry in entries if entry["type"] != "directory"]

    def get(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            with self._faults():
                content = self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return bytes(content)

    @contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """A file to read parts of.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._faults(), self.fs.open(f"{self.root}/{name}", "rb") as file:
            yield file

    def put(self, name: str, content: bytes) -> None:
        """Writes a file whole."""
        path = f"{self.root}/{name}"
        if not self._local:
            with self._faults():
                self.fs.pipe_file(path, content)
            return
        self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
        with replacing(Path(path)) as partial:
            partial.write_bytes(content)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # stores' clients have errors of their own
            reason = f"{shown(self.root)}: {type(error).__name__}: {error}"
            raise OSError(reason) from error
