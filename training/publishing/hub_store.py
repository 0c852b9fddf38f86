"""Publishing to a model repository on the Hugging Face hub: a version is one commit.

The commit says which one it follows, so that of two publishers who took the same number only one gets it: the
hub refuses the other's. Nothing is ever half there. `.claims/<number>`, in the same commit, stays when a
version is deleted, so that no number is given twice.
"""

import io
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import CommitOperationAdd, constants, get_token
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from model.errors import CheckpointError
from model.storage.files import Progress
from model.storage.hub.errors import LOG_IN, may_be_gone, status, tokens_page
from model.storage.hub.files import HubFileSystem, place_of
from model.storage.hub.session import patient
from model.storage.manifest import FILES, MANIFEST, Manifest
from model.storage.versions import Versions, store_errors
from model.storage.work_folder import remove_left_over, temporary
from training.publishing.stores import RESERVATIONS, TakenError, VersionReservation, next_number

WAITS = (1.0, 4.0, 16.0)  # seconds before a commit is tried again that the hub could not take
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubStore:
    """See `training.publishing.stores.Store`.

    Args:
        versions: a place on the hub.

    Raises:
        CheckpointError: nobody can write there, or not without a token.
    """

    def __init__(self, versions: Versions):
        place = place_of(versions.location)
        self.versions = versions
        self._repository = place.id
        self._branch = place.revision or constants.DEFAULT_REVISION
        self._folder = f"{place.path_in_repo}/" if place.path_in_repo else ""
        self._fs: HubFileSystem = versions.fs
        if _COMMIT.fullmatch(self._branch):
            raise CheckpointError(f"{versions}: a commit never changes; name a branch to publish to")
        if self._fs.api.token is False or not (self._fs.api.token or get_token()):
            raise CheckpointError(
                f"{versions}: publishing needs a token that may write, from {tokens_page()}: {LOG_IN}"
            )

    @property
    def work_root(self) -> Path:
        """On this machine, since files are uploaded from there."""
        return temporary()

    def reservation(self) -> VersionReservation:
        """See `Store`. The number is sure only once the commit is made."""
        with store_errors(self.versions.location):
            head = self._fs.head(self.versions.root)
        return VersionReservation(next_number(self.versions), head)

    def clean(self, reservation: VersionReservation) -> None:
        """See `Store`. On the hub there is nothing half done."""
        remove_left_over(self.work_root)

    def place(
        self, reservation: VersionReservation, version: Path, manifest: Manifest, progress: Progress
    ) -> None:
        """See `Store`."""
        folder = f"{self._folder}{reservation.number}"
        files: list[CommitOperationAdd] = [
            _Upload(f"{folder}/{name}", version / name, progress) for name in (*FILES, MANIFEST)
        ]
        # two publishers may have the very same version: this tells whose commit it was
        word = uuid.uuid4().hex.encode()
        files.append(CommitOperationAdd(f"{self._folder}{RESERVATIONS}/{reservation.number}", word))
        with store_errors(self.versions.location), patient(), _without_bars():
            self._fs.api.preupload_lfs_files(
                self._repository, files, revision=self._branch, num_threads=1, free_memory=False
            )
            committed = self._commit(files, reservation, word, manifest)
        if not committed:
            raise TakenError

    def _commit(
        self,
        files: list[CommitOperationAdd],
        reservation: VersionReservation,
        word: bytes,
        manifest: Manifest,
    ) -> bool:
        """Whether the commit is made; it is not where another one came in between."""
        for wait in (*WAITS, None):
            try:
                self._create_commit(files, reservation, manifest)
                return True
            except Exception as error:
                if self._arrived(reservation, word):
                    return True
                if status(error) == 412:
                    return False
                if wait is None or not may_be_gone(error):
                    raise
            time.sleep(wait)
        return False

    def _create_commit(
        self, files: list[CommitOperationAdd], reservation: VersionReservation, manifest: Manifest
    ) -> None:
        self._fs.api.create_commit(
            self._repository,
            files,
            revision=self._branch,
            parent_commit=reservation.token,
            commit_message=f"{manifest.name} version {reservation.number}",
            commit_description=f"digest {manifest.digest}",
            num_threads=1,
        )

    def _arrived(self, reservation: VersionReservation, word: bytes) -> bool:
        """Whether a commit was made whose answer was lost."""
        with suppress(Exception):  # the first error is the one to tell
            return self.versions.read(f"{self.versions.root}/{RESERVATIONS}/{reservation.number}") == word
        return False


class _Upload(CommitOperationAdd):
    """A file that tells how much of it is under way."""

    def __init__(self, path_in_repo: str, file: Path, progress: Progress):
        super().__init__(path_in_repo=path_in_repo, path_or_fileobj=file)
        self._file = file
        self._progress = progress

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """The file; with a bar it is for sending, and the bar is ours."""
        if with_tqdm:
            with io.BufferedReader(_ReportedFile(self._file, self._progress)) as file:
                yield file
        else:
            with self._file.open("rb") as plain:
                yield plain


class _ReportedFile(io.FileIO):
    """A file that tells what is read of it."""

    def __init__(self, path: Path, progress: Progress):
        super().__init__(path)
        self._step = f"uploading {path.name}"
        self._size = path.stat().st_size
        self._progress = progress

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        """Reads on."""
        count = super().readinto(buffer)
        self._progress(self._step, self.tell(), self._size)
        return count


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps huggingface_hub from showing bars beside ours."""
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
