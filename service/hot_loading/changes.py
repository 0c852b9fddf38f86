"""What administrators ask for: written into the registry's serving.json, which every process obeys.

Nothing is asked for that this process cannot serve itself: a version is loaded first, then the state is
written, then the version serves. Of two who write at the same time one wins, and the other is refused.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from model.storage.serving_state import (
    MOST_BEFORE,
    ServingChangedError,
    ServingState,
    ServingStateError,
)
from model.storage.steps_back import before_pin, before_unpin, steps_back
from model.storage.versions import StoreError
from service.errors import ConflictError, NotFoundError, StoreUnavailableError
from service.hot_loading.arrivals import LOOK_SECONDS, UnservableError
from service.hot_loading.follower import Follower
from service.hot_loading.loaded import LoadedVersion
from service.hot_loading.loader import in_words, limited

LOG = logging.getLogger(__name__)


class Changes:
    """Changes of one model.

    Args:
        follower: of the model.
    """

    def __init__(self, follower: Follower):
        self._follower = follower
        self._served = follower.served
        self._state: ServingState | None = None
        self._numbers: Sequence[int] = ()

    async def pin(self, number: int, by: str) -> str:
        """Serves a version, loaded if it is not, until `unpin`.

        Args:
            number: of the version.
            by: who asks, for serving.json.

        Raises:
            NotFoundError: the registry has no such version.
            ConflictError: it is refused, somebody else wrote, or nobody can from here; nothing has changed.
            StoreUnavailableError: it cannot be loaded or written just now; nothing has changed.
        """
        async with self._follower.lock:
            await self._look()
            current = self._served.current
            now = None if current is None else current.number
            await self._stay(number, before_pin(self._state, now, number, self._numbers), by)
            return f"version {number} serves, and stays until unpinned"

    async def unpin(self, by: str) -> str:
        """Goes back to the policy of the settings, or to the newest version if that is a pin, too.

        Raises:
            ConflictError, StoreUnavailableError: as of `pin`.
        """
        async with self._follower.lock:
            own = self._follower.own_policy
            await self._look()
            before = before_unpin(self._state, max(self._numbers, default=None))
            percent = own.percent if own.kind == "canary" else None
            policy = "latest" if percent is None else "canary"
            await self._write(by, policy=policy, percent=percent, before=before)
            return f"the policy is {self._follower.policy} again, from the next look at the registry on"

    async def rollback(self, by: str) -> str:
        """Goes back to the version before, and pins it; with a canary, that is the one beside it.

        The version before is the one that served before the one that serves now; if it is gone or cannot be
        served, the next one of `steps_back`.

        Raises:
            ConflictError, NotFoundError, StoreUnavailableError: as of `pin`, or there is none.
        """
        async with self._follower.lock:
            await self._look()
            served = self._served
            if served.current is None:
                raise ConflictError(f"no version of {served.name} serves; pin the one you want")
            if served.canary is not None:
                number, withdrawn = served.current.number, served.canary.number
                await self._stay(number, self._before, by)
                done = f"version {withdrawn} is withdrawn; version {number} serves, and stays until unpinned"
            else:
                number = await self._go_back(served.current.number, by)
                done = f"version {number} serves again, and stays until unpinned"
            self._follower.metrics.model_loads.labels(served.name, "rolled_back").inc()
            LOG.info("rolled back", extra={"model": served.name, "version": number, "reason": by})
            return done

    async def canary(self, number: int, percent: int, by: str) -> str:
        """Tries a version on a part of the requests, beside the one that serves, until somebody decides.

        Args:
            number: of the version.
            percent: of the requests that name no version, 1..100.
            by: who asks, for serving.json.

        Raises:
            ConflictError: it serves already, or as of `pin`.
            NotFoundError, StoreUnavailableError: as of `pin`.
        """
        async with self._follower.lock:
            await self._look()
            current = self._served.current
            if current is None or current.number == number:
                raise ConflictError(f"version {number} of {self._served.name} serves already")
            trial, canary = self._served.trial, self._served.canary
            again = canary is not None and canary.number == number and trial is not None and trial.held
            version = await self._follower.ready(number)
            versions: dict[str, Any] = {"version": current.number, "canary": number, "percent": percent}
            await self._write(by, version, policy="canary", before=self._before, **versions)
            if again and trial is not None:
                trial.percent = percent
            else:
                self._served.put_on_trial(version, self._follower.trial(percent=percent, held=True))
            self._follower.count()
            return f"version {number} is tried with {percent} % of the requests, until somebody decides"

    async def _stay(self, number: int, before: tuple[int, ...], by: str) -> None:
        version = await self._follower.ready(number)
        await self._write(by, version, policy="pinned", version=number, before=before)
        self._served.serve(version)
        self._served.withdraw_canary()
        self._follower.count()

    async def _go_back(self, current: int, by: str) -> int:
        """Pins the first version of those to go back to that can be served."""
        fault: Exception | None = None
        for number, earlier in steps_back(self._state, current, self._numbers, self._served.before):
            try:
                await self._stay(number, earlier, by)
            except (UnservableError, NotFoundError) as error:
                fault = fault or error
                continue
            return number
        name = self._served.name
        raise fault or ConflictError(f"no version of {name} is older than {current}; pin the one you want")

    @property
    def _before(self) -> tuple[int, ...]:
        return () if self._state is None else self._state.before

    async def _look(self) -> None:
        """Looks at what is asked for now, and at what is there."""
        follower = self._follower
        try:
            look = await follower.asked(follower.source.look)
        except ServingStateError:  # to be written anew is what it needs
            self._state, self._numbers = None, ()
        except Exception as error:
            raise StoreUnavailableError(f"nothing has changed: {in_words(error)}") from error
        else:
            self._state, self._numbers = look.state, look.numbers

    async def _write(
        self, by: str, loaded: LoadedVersion | None = None, *, before: tuple[int, ...], **versions: Any
    ) -> None:
        """Writes what is asked for; if that fails, lets the version go that was loaded for it."""
        follower, old = self._follower, self._state
        state = ServingState(
            revision=1 if old is None else old.revision + 1,
            before=before[-MOST_BEFORE:],
            changed_by=by,
            changed_at=datetime.now(UTC).isoformat(timespec="seconds"),
            **versions,
        )
        try:
            async with limited(LOOK_SECONDS, "writing to the registry"):
                await follower.thread.run(partial(follower.source.write, state))
        except Exception as error:
            if loaded is not None:
                self._served.dismiss(loaded)
            reason = follower.source.without_place(in_words(error))
            if isinstance(error, ServingChangedError):
                raise ConflictError(f"nothing has changed: {reason}") from error
            if isinstance(error, StoreError) and error.refused:
                hint = "`ebseg models` with --registry writes it from where it can be written"
                raise ConflictError(f"nothing has changed: {reason}; {hint}") from error
            raise StoreUnavailableError(f"nothing has changed: {reason}") from error
        follower.take_in(state)
