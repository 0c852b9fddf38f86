"""A file of this machine, which is taken as it lies."""

from collections.abc import Iterator
from contextlib import contextmanager

from model.errors import FetchError
from model.fetch.fetching import Fetched, SourceFile
from model.fetch.sources import LocalFile
from model.storage.files import Progress, sha256


class LocalFetcher:
    """The file itself.

    Args:
        file: which.
        progress: notified of hashing.
    """

    def __init__(self, file: LocalFile, *, progress: Progress):
        self._file = file
        self._progress = progress

    def find(self) -> SourceFile:
        """Its size.

        Raises:
            FetchError: it cannot be read.
        """
        try:
            size = self._file.path.stat().st_size
        except OSError as error:
            raise FetchError(f"{self._file} cannot be read: {error.strerror}") from None
        return SourceFile(where=str(self._file), size=size, here=size, whole=self._file.path)

    @contextmanager
    def fetched(self, found: SourceFile) -> Iterator[Fetched]:
        """The file, with its digest."""
        digest = sha256(self._file.path, self._progress)
        yield Fetched(path=self._file.path, sha256=digest, received=0, source=self._file.name)
