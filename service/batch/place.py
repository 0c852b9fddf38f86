"""A place that a run writes to: a folder, or an fsspec URL of an object store."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from model.storage.files import replacing, sync
from model.storage.versions import is_refusal
from model.urls import shown
from service.errors import UsageError

_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class OutputPlace:
    """A folder, or a place in an object store.

    Raises:
        UsageError: it is no such place, or lets nobody in; of all methods.
        OSError: any other fault of its, which may pass; of all methods.
    """

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
        with self._faults():
            self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            with replacing(Path(path)) as partial:
                partial.write_bytes(content)

    def put_first(self, name: str, content: bytes) -> bool:
        """Writes a file whole if there is none, and says whether it did: of several who try, one does."""
        path = f"{self.root}/{name}"
        with self._faults():
            try:
                if self._local:
                    self.fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
                    _link_first(Path(path), content)
                else:
                    self.fs.pipe_file(path, content, mode="create")
            except Exception:  # stores have words of their own for one that is there
                self.fs.invalidate_cache()
                if self.fs.exists(path):
                    return False
                raise
        return True

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # stores' clients have errors of their own
            if is_refusal(error) or (isinstance(error, OSError) and error.errno in _UNUSABLE):
                raise UsageError(f"{shown(self.root)} cannot be used: {error}") from error
            if isinstance(error, OSError):
                if error.errno is not None and error.filename is None:
                    error.filename = self.root  # a full disk does not say which
                raise
            reason = f"{shown(self.root)}: {type(error).__name__}: {error}"
            raise OSError(reason) from error


def _link_first(path: Path, content: bytes) -> None:
    """Raises FileExistsError if there is a file of that name."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in _NO_LINKS or path.exists():
                raise
            with open(path, "xb") as file:  # a file system without links
                file.write(content)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)
