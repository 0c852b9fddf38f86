"""What hub, web and local files have in common: what is found, what is fetched, one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from model.errors import FetchError
from model.fetch.transfer import Notify
from model.storage.files import Progress, sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """What is known of a file before it is fetched.

    Attributes:
        where: it lies, for people.
        size: bytes; None where the server does not tell.
        here: bytes of it that are on this machine already.
        whole: the file, if all of it is.
        sha256: that it must have, where its server tells.
        place: folder that it is fetched into; None if it is not fetched.
    """

    where: str
    size: int | None
    here: int
    whole: Path | None
    sha256: str | None = None
    place: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A whole file.

    Attributes:
        path: where it is now.
        sha256: its digest.
        received: bytes that came over the network for it, this time.
        source: where it came from, for the manifest: no secrets.
    """

    path: Path
    sha256: str
    received: int
    source: str

    def at(self, path: Path) -> "Fetched":
        """The same file at another place."""
        return replace(self, path=path)


class Fetcher(Protocol):
    """A kind of source."""

    def find(self) -> SourceFile:
        """What can be known without fetching.

        Raises:
            FetchError: nothing.
        """

    def fetched(self, found: SourceFile) -> AbstractContextManager[Fetched]:
        """The whole file, which no other process fetches meanwhile.

        Raises:
            FetchError: it could not be fetched; what came of it is kept.
            OSError: the disk did not take it.
        """


def finished(path: Path, found: SourceFile, source: str, progress: Progress, received: int = 0) -> Fetched:
    """A file whose digest was looked at; one that is damaged is thrown away.

    Raises:
        FetchError: it is not the file that its server announced.
    """
    name = source.rpartition("/")[2]
    digest = sha256(path, lambda step, done, total: progress(f"checking {name}", done, total))
    if found.sha256 is not None and digest != found.sha256:
        throw_away(path)
        raise FetchError(
            f"{name}: the file has the sha256 {digest}, but its server tells {found.sha256}; it was "
            "thrown away, start again"
        )
    return Fetched(path=path, sha256=digest, received=received, source=source)


def throw_away(path: Path) -> None:
    """Removes a file, and what it links to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path, name: str, notify: Notify) -> Iterator[None]:
    """Waits until no other process fetches the same file, and keeps others waiting meanwhile."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notify(f"{name}: another process fetches it just now; waiting for that one")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
