"""Changes of a model's serving.json by whoever can write the registry, without any service.

No process looks at the version first: it has to be whole as far as its sizes tell, and followers that cannot
load it tell so and stay at what they have.
"""

import getpass
import platform
from datetime import UTC, datetime
from typing import Any

from model.errors import CheckpointError
from model.storage.serving_state import (
    MOST_BEFORE,
    ServingFile,
    ServingState,
    ServingStateError,
)
from model.storage.steps_back import before_pin, before_unpin, steps_back
from model.storage.versions import StoreError, Versions


class ServingChanges:
    """What may be asked for.

    Args:
        versions: the model's place.

    Raises:
        CheckpointError: a version that is not there or not whole; of all that follow.
        ServingChangedError: somebody else wrote meanwhile; nothing has changed.
        StoreError: the registry does not answer, or cannot be written; nothing has changed.
    """

    def __init__(self, versions: Versions):
        self._versions = versions
        self._file = ServingFile(versions)
        try:
            self._state = self._file.read()
        except ServingStateError:  # to be written anew is what it needs
            self._state = None

    def pin(self, number: int) -> ServingState:
        """Stays at a version."""
        self._versions.check(number)
        before = before_pin(self._state, self._stable(), number, self._versions.candidates())
        return self._write(policy="pinned", version=number, before=before)

    def unpin(self) -> ServingState:
        """Follows the newest version."""
        newest = self._versions.newest()
        before = before_unpin(self._state, None if newest is None else newest.version)
        return self._write(policy="latest", before=before)

    def rollback(self) -> ServingState:
        """Stays at the version that served before, or the next whole one of `steps_back`; beside a canary."""
        state, before = self._state, self._before()
        if state is not None and state.canary is not None and state.version is not None:
            return self._write(policy="pinned", version=state.version, before=before)
        now = self._stable()
        fault: CheckpointError | None = None
        for number, earlier in [] if now is None else steps_back(state, now, self._versions.candidates()):
            try:
                self._versions.check(number)
            except StoreError:
                raise
            except CheckpointError as error:
                fault = fault or error
                continue
            return self._write(policy="pinned", version=number, before=earlier)
        raise fault or CheckpointError(f"{self._versions} has no older whole version; pin the one you want")

    def canary(self, number: int, percent: int) -> ServingState:
        """Tries a version on so many percent of the requests, beside the one that serves."""
        self._versions.check(number)
        base = self._stable()
        if base == number and (self._state is None or self._state.version is None):
            base = self._whole_below(number)  # the newest is to be tried
        if base is None or base == number:
            serving = f"version {number} serves already, or no other does"
            raise CheckpointError(f"{self._versions}: {serving}")
        versions = {"version": base, "canary": number, "percent": percent}
        return self._write(policy="canary", before=self._before(), **versions)

    def _before(self) -> tuple[int, ...]:
        return () if self._state is None else self._state.before

    def _stable(self) -> int | None:
        """The version that is asked for: the named one, or the newest whole one."""
        if self._state is not None and self._state.version is not None:
            return self._state.version
        newest = self._versions.newest()
        return None if newest is None else newest.version

    def _whole_below(self, number: int) -> int | None:
        for older in reversed(self._versions.candidates()):
            if older < number:
                try:
                    return self._versions.check(older).version
                except StoreError:
                    raise
                except CheckpointError:
                    continue
        return None

    def _write(self, *, before: tuple[int, ...], **versions: Any) -> ServingState:
        state = ServingState(
            revision=1 if self._state is None else self._state.revision + 1,
            before=before[-MOST_BEFORE:],
            changed_by=_who(),
            changed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            **versions,
        )
        self._file.write(state)
        return state


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{platform.node()}"
