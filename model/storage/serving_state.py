"""Which version of a model is to serve, everywhere: `<registry>/<model>/serving.json`.

The one answer for every process that follows the registry. Each write raises the revision by one, and is made
only if nobody else wrote since the file was read: a folder locks and renames, an object store puts on a
condition (`conditional.py`), the Hugging Face hub commits on top of a named commit.
"""

import dataclasses
import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from model.errors import CheckpointError, UnfinishedError
from model.network.json_reading import read
from model.storage import conditional
from model.storage.files import replace_text
from model.storage.hub import HUB
from model.storage.manifest import json_object, to_json
from model.storage.versions import StoreError, Versions, store_errors

SERVING = "serving.json"
LOCK = ".serving.lock"
SCHEMA = 1
MOST_BEFORE = 50
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "At least one of the pre-conditions")
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

PolicyKind = Literal["latest", "pinned", "canary"]


class ServingStateError(CheckpointError):
    """A serving.json that cannot be read: what is asked for is unknown until it is written again."""


class ServingChangedError(CheckpointError):
    """Somebody else has written since the state was read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingState:
    """What is asked for.

    Attributes:
        schema: of the file.
        revision: counts the writes, from 1 up.
        policy: "latest" is the newest good version, "pinned" stays at one, "canary" tries one beside another,
            or, where none is named, each new one.
        version: that serves, of "pinned" and of "canary" with a named one.
        canary: that is tried; None tries each new one.
        percent: of the requests that name no version, 1..100, for the canary.
        before: versions that served before, the last at the end, for `rollback`.
        changed_by, changed_at: who wrote it; ISO time, UTC.
    """

    schema: int = SCHEMA
    revision: int
    policy: PolicyKind
    version: int | None = None
    canary: int | None = None
    percent: int | None = None
    before: tuple[int, ...] = ()
    changed_by: str
    changed_at: str

    def __post_init__(self) -> None:
        numbers = [number for number in (self.version, self.canary, *self.before) if number is not None]
        wanted = {
            "latest": (False, False, False),
            "pinned": (True, False, False),
            "canary": (self.canary is not None, self.canary is not None, True),
        }[self.policy]
        given = (self.version is not None, self.canary is not None, self.percent is not None)
        if self.schema != SCHEMA:
            raise ServingStateError(f"{SERVING}: schema {self.schema} is unknown; a newer ebseg may read it")
        if self.revision < 1 or any(number < 1 for number in numbers) or given != wanted:
            raise ServingStateError(f"{SERVING}: revision, versions and policy do not go together")
        if self.percent is not None and not 1 <= self.percent <= 100:
            raise ServingStateError(f"{SERVING}: percent must be 1 to 100, got {self.percent}")
        if self.canary is not None and self.canary == self.version:
            raise ServingStateError(f"{SERVING}: version {self.canary} cannot be tried beside itself")
        try:
            datetime.fromisoformat(self.changed_at)
        except ValueError:
            raise ServingStateError(f"{SERVING}: changed_at is no ISO time") from None

    def __str__(self) -> str:
        if self.policy == "pinned":
            return f"version {self.version} pinned"
        if self.policy == "canary":
            tried = "each new version" if self.canary is None else f"version {self.canary}"
            beside = "" if self.version is None else f" beside version {self.version}"
            return f"{tried} tried with {self.percent} %{beside}"
        return "the newest version"

    @classmethod
    def from_json(cls, content: bytes) -> "ServingState":
        """What a file says.

        Raises:
            ServingStateError: it says nothing that can be used.
        """
        try:
            values = json_object(content, SERVING)
        except CheckpointError as error:
            raise ServingStateError(str(error)) from None
        state: ServingState = read(cls, values, SERVING, ServingStateError)
        return state

    def to_json(self) -> str:
        """The opposite of `from_json`."""
        return to_json(json.loads(json.dumps(dataclasses.asdict(self))))


class ServingFile:
    """The file of one model's place in a registry.

    Args:
        versions: the place.
    """

    def __init__(self, versions: Versions):
        self._versions = versions
        self._path = f"{versions.root}/{SERVING}"

    def read(self) -> ServingState | None:
        """What is asked for; None where nobody ever asked.

        Raises:
            ServingStateError: the file is damaged.
            StoreError: the store does not answer.
        """
        try:
            content = self._versions.read(self._path)
        except UnfinishedError:
            return None
        return ServingState.from_json(content)

    def write(self, state: ServingState) -> None:
        """Puts a state in the place of the one whose revision is one less; of none if its own is 1.

        Raises:
            ServingChangedError: another revision is there.
            StoreError: the store does not take it, or can make no such write (`refused`).
        """
        if self._versions.location.startswith(HUB):
            write = self._commit
        elif self._versions.folder is not None:
            write = self._rename
        elif conditional.can_compare(self._versions.fs):
            write = self._put
        else:
            raise StoreError(
                f"{self._versions}: this kind of registry cannot compare and write in one; a folder, s3://, "
                "gs://, az:// and the Hugging Face hub can. Pin by the setting model instead",
                refused=True,
            )
        with store_errors(self._versions.location):
            write(state)

    def _rename(self, state: ServingState) -> None:
        folder = Path(self._versions.root)
        try:
            with (folder / LOCK).open("a") as lock:  # goes with the process, however that ends
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._compare(state)
                replace_text(folder / SERVING, state.to_json())
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            refusal = f"{folder} cannot be written from here: {error.strerror}"
            raise StoreError(refusal, refused=True) from error

    def _put(self, state: ServingState) -> None:
        # the mark first: whatever is read after it, the write fails if it is older
        former = conditional.mark(self._versions.fs, self._path)
        self._compare(state)
        with self._lost(state):
            conditional.put(self._versions.fs, self._path, state.to_json().encode(), former)

    def _commit(self, state: ServingState) -> None:
        from huggingface_hub import CommitOperationAdd, constants

        from model.storage.hub.files import place_of

        place, fs = place_of(self._versions.location), self._versions.fs
        head = fs.head(self._versions.root)
        self._compare(state)
        folder = f"{place.path_in_repo}/" if place.path_in_repo else ""
        with self._lost(state):
            fs.api.create_commit(
                place.id,
                [CommitOperationAdd(f"{folder}{SERVING}", state.to_json().encode())],
                revision=place.revision or constants.DEFAULT_REVISION,
                parent_commit=head,
                commit_message=f"{self._versions.name}: {state}",
            )

    def _compare(self, state: ServingState) -> None:
        try:
            now = self.read()
        except ServingStateError:
            return  # to be written again is all that it is good for
        if (0 if now is None else now.revision) != state.revision - 1:
            raise _changed(now)

    @contextmanager
    def _lost(self, state: ServingState) -> Iterator[None]:
        """Tells who wrote if a condition does not hold; a repeated request may meet its own write."""
        try:
            yield
        except Exception as error:
            reason = f"{error} {error.__cause__}"
            status = getattr(getattr(error, "response", None), "status_code", None)
            if (
                not isinstance(error, FileExistsError)
                and status != 412
                and all(t not in reason for t in _LOST)
            ):
                raise
            now = self.read()
            if now != state:
                raise _changed(now) from error


def _changed(now: ServingState | None) -> ServingChangedError:
    if now is None:
        return ServingChangedError(f"{SERVING} is gone; look, and ask again")
    return ServingChangedError(
        f"{now.changed_by or 'somebody'} has changed it meanwhile: {now}, revision {now.revision} of "
        f"{now.changed_at}; look, and ask again"
    )
