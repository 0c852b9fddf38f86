"""Places that versions are published to: a local folder, and an object store behind an fsspec URL; see
`training.publishing.hub_store` for the Hugging Face hub.

Folder and object store give a number away by creating `.claims/<number>`, which only one process can; claims
stay, so a number is never given twice, not even that of a version that was deleted. A folder then renames the
finished version into its place. An object store cannot rename: files go to their place one by one and the
manifest last.
"""

import errno
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from model.storage.files import Progress, sync, write_text
from model.storage.hub import HUB
from model.storage.manifest import FILES, MANIFEST, Manifest
from model.storage.versions import Versions, counted, store_errors, version_number
from model.storage.work_folder import STALE_SECONDS, age, remove_left_over, temporary

RESERVATIONS = ".claims"
HEARTBEAT_SECONDS = STALE_SECONDS / 6
CONFLICT = "ConditionalRequestConflict"
"""S3's answer where two create the same object in the same instant: neither learns who won, ask again."""
CONFLICT_WAITS = (0.1, 0.4, 1.6)  # seconds
_PARTIAL = re.compile(r"\.\d+\.[0-9a-f]{32}\.partial")  # of model.storage.files.renamed_into


class TakenError(Exception):
    """Somebody else has the number after all; take the next one."""


@dataclass(frozen=True, slots=True)
class VersionReservation:
    """A number that is this process's own, and the word that proves it."""

    number: int
    token: str


class Store(Protocol):
    """Where versions go."""

    versions: Versions

    @property
    def work_root(self) -> Path:
        """Local folder to prepare versions in."""

    def reservation(self) -> VersionReservation:
        """Takes the next number, above every one that was ever used or claimed."""

    def clean(self, reservation: VersionReservation) -> None:
        """Removes what publishers that are gone have left half done."""

    def place(
        self, reservation: VersionReservation, version: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """Makes a finished version folder visible under the claimed number, all of it at once.

        Raises:
            TakenError: the number is somebody else's.
            CheckpointError, OSError: the store did not take it.
        """


def open_store(versions: Versions) -> Store:
    """The store behind a place."""
    if versions.location.startswith(HUB):
        from training.publishing.hub_store import HubStore

        return HubStore(versions)
    return FolderStore(versions, versions.folder) if versions.folder is not None else ObjectStore(versions)


def next_number(versions: Versions) -> int:
    """One above every number that exists, half or whole, or is claimed."""
    names = versions.entries() | set(versions.sizes(f"{versions.root}/{RESERVATIONS}"))
    return 1 + max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


class FolderStore:
    """A folder on a disk whose rename is atomic."""

    def __init__(self, versions: Versions, folder: Path):
        self.versions = versions
        self._folder = folder

    @property
    def work_root(self) -> Path:
        """In the registry itself: a rename does not cross disks."""
        return self._folder

    def reservation(self) -> VersionReservation:
        """See `Store`."""
        reservations, lowest = self._folder / RESERVATIONS, 1
        reservations.mkdir(parents=True, exist_ok=True)
        while True:
            lowest = max(lowest, next_number(self.versions))
            with suppress(FileExistsError):
                write_text(reservations / str(lowest), "")
                sync(reservations)
                return VersionReservation(lowest, "")
            lowest += 1

    def clean(self, reservation: VersionReservation) -> None:
        """See `Store`."""
        remove_left_over(self._folder)
        for folder in self._folder.iterdir():
            if _PARTIAL.fullmatch(folder.name) and age(folder) > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def place(
        self, reservation: VersionReservation, version: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """See `Store`."""
        sync(version)
        try:
            os.rename(version, self._folder / str(reservation.number))
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise TakenError from error
            raise
        sync(self._folder)


class ObjectStore:
    """An object store; S3 and others that can create an object only if it is not there."""

    def __init__(self, versions: Versions):
        self.versions = versions

    @property
    def work_root(self) -> Path:
        """On this machine, since files are uploaded from there."""
        return temporary()

    def reservation(self) -> VersionReservation:
        """See `Store`."""
        token, lowest = uuid.uuid4().hex, 1
        while True:
            lowest = max(lowest, next_number(self.versions))
            reservation = VersionReservation(lowest, token)
            if self._create(self._reserved(lowest), token.encode()):
                return reservation
            lowest += 1

    def clean(self, reservation: VersionReservation) -> None:
        """See `Store`. The store's clock is asked for the time, through the claim that was just made."""
        remove_left_over(self.work_root)
        now = self._modified(self._reserved(reservation.number))
        for name in self.versions.sizes(f"{self.versions.root}/{RESERVATIONS}"):
            number = version_number(name)
            if now is None or number is None or number == reservation.number:
                continue
            place = self.versions.path(number)
            files = self.versions.sizes(place)
            if not files or MANIFEST in files:
                continue
            changes = [
                self._modified(path)
                for path in (*(f"{place}/{file}" for file in files), self._reserved(number))
            ]
            if all(
                change is not None and (now - change).total_seconds() > STALE_SECONDS for change in changes
            ):
                with store_errors(self.versions.location):
                    # first the claim: whoever does live after all sees that it is lost, and takes another
                    self.versions.fs.pipe_file(self._reserved(number), b"given up")
                self._remove(place)

    def place(
        self, reservation: VersionReservation, version: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """See `Store`."""
        place = self.versions.path(reservation.number)
        try:
            with self._kept_alive(reservation):
                for name in FILES:
                    with store_errors(self.versions.location):
                        callback = counted(f"uploading {name}", progress)
                        self.versions.fs.put_file(str(version / name), f"{place}/{name}", callback=callback)
            self._confirm(reservation, manifest)
        except TakenError:
            raise
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                if self._owned(reservation):
                    self._remove(place)
            raise
        if not self._create(f"{place}/{MANIFEST}", (version / MANIFEST).read_bytes()):
            raise TakenError

    def _confirm(self, reservation: VersionReservation, manifest: Manifest) -> None:
        sizes = self.versions.sizes(self.versions.path(reservation.number))
        if sizes != {name: entry.bytes for name, entry in manifest.files.items()} or not self._owned(
            reservation
        ):
            raise TakenError

    def _create(self, path: str, content: bytes) -> bool:
        """Creates an object unless it is there. A repeated request may meet its own first try's object."""
        with store_errors(self.versions.location):
            for wait in (*CONFLICT_WAITS, None):
                try:
                    self.versions.fs.pipe_file(path, content, mode="create")
                    return True
                except FileExistsError:
                    break
                except OSError as error:
                    if wait is None or CONFLICT not in f"{error} {error.__cause__}":
                        raise
                    time.sleep(wait)
        return self.versions.read(path) == content

    def _owned(self, reservation: VersionReservation) -> bool:
        return self.versions.read(self._reserved(reservation.number)) == reservation.token.encode()

    def _modified(self, path: str) -> datetime | None:
        """When an object was last written; None where it is gone or the store does not say."""
        with store_errors(self.versions.location):
            self.versions.fs.invalidate_cache()
            try:
                changed: datetime = self.versions.fs.modified(path)
            except (FileNotFoundError, NotImplementedError):
                return None
        return changed

    def _remove(self, place: str) -> None:
        with suppress(Exception):  # readers pass it over either way
            self.versions.fs.rm(place, recursive=True)

    def _reserved(self, number: int) -> str:
        return f"{self.versions.root}/{RESERVATIONS}/{number}"

    @contextmanager
    def _kept_alive(self, reservation: VersionReservation) -> Iterator[None]:
        """Writes the claim again now and then, so that nobody takes a long upload for one that has died."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                with suppress(Exception):  # the next one will do
                    self.versions.fs.pipe_file(self._reserved(reservation.number), reservation.token.encode())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
