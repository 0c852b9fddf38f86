"""Follows a registry with one model: watches, tries new versions, refuses bad ones, obeys administrators.

What changes versions holds the lock, one at a time. A version that is bad goes into quarantine, with the
reason; one that is not all there yet is waited for; a store, disk, memory or device that fails says nothing
about the version, and is tried again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn, TypeVar

from model.errors import CheckpointError, UnfinishedError
from service.errors import ConflictError, NotFoundError, StoreUnavailableError
from service.hot_loading.canary import Trial
from service.hot_loading.loaded import LoadedVersion
from service.hot_loading.loader import (
    LOAD_SECONDS,
    LoaderThread,
    Loading,
    in_public,
    in_words,
    is_versions_fault,
    limited,
    may_pass,
)
from service.hot_loading.quarantine import Quarantine, newest_first
from service.hot_loading.registry import Policy, RegistryModel, RegistryVersion
from service.hot_loading.served import Served
from service.hot_loading.status import ModelStatus
from service.observability.metrics import Metrics

LOG = logging.getLogger(__name__)
T = TypeVar("T")
JITTER = 0.2  # of the time between two looks, so that many servers do not look at once
LONGEST_BACK_OFF = 60.0  # seconds between two looks at a registry that does not answer
LOOK_SECONDS = 120.0  # a question to the registry that takes longer hangs


class VersionRefusedError(Exception):
    """A version was put into quarantine."""


class Follower:
    """One model of a registry, with a thread that asks for it: it waits for no other model's answers.

    Args:
        served: the model; it gets its versions from here.
        policy: which version is to serve.
        source: its place in the registry.
        loading: brings versions up.
        metrics: of the service.
        trial: makes a canary's trial with so many percent of the requests.

    Attributes:
        looked: whether the first look has ended, well or not.
        failure: what the last look ended with; None if it ended well.
        on_look: called after each look.
    """

    def __init__(
        self,
        served: Served,
        policy: Policy,
        source: RegistryModel,
        loading: Loading,
        *,
        metrics: Metrics,
        trial: Callable[..., Trial],
    ):
        self.served = served
        self.policy = policy
        self.pinned = policy.version
        self.last_error: str | None = None  # with all that the log says
        self.public_error: str | None = None  # what anybody may know of it
        self.last_checked_at: datetime | None = None
        self.quarantine = Quarantine(served.name, metrics)
        self._coming: int | None = None  # the version that is being loaded
        self._source = source
        self._loading = loading
        self._metrics = metrics
        self._trial = trial
        self.looked = False
        self.failure: Exception | None = None
        self.on_look: Callable[[], None] = lambda: None
        self._thread = LoaderThread(f"ebseg-registry-{served.name}")
        self._lock = asyncio.Lock()
        served.on_fall_back = self._fallen_back

    async def follow(self, seconds: float) -> None:
        """Looks at the registry at once and then every so many seconds; more seldom while it fails."""
        failures = 0
        while True:
            try:
                async with self._lock:
                    await self._look()
                failures, self.failure = 0, None
            except UnfinishedError as error:  # the registry answers
                failures, self.failure = 0, error
            except Exception as error:  # noted where it was raised
                failures, self.failure = min(failures + 1, 10), error
            self.looked = True
            self.on_look()
            wait = min(seconds * 2**failures, max(seconds, LONGEST_BACK_OFF))
            await asyncio.sleep(wait * random.uniform(1 - JITTER, 1 + JITTER))

    @property
    def hopeless(self) -> bool:
        """Whether nothing serves, and waiting for the registry would not change that."""
        return self.served.current is None and self.failure is not None and not may_pass(self.failure)

    @property
    def missing(self) -> str | None:
        """Why no version serves, for everybody; None if one does."""
        if self.served.current is not None:
            return None
        if self.public_error is not None:
            return self.public_error
        if self.failure is None:
            return "it is being loaded"
        return self._source.without_place(in_words(self.failure))

    async def stop(self, seconds: float) -> None:
        """Ends the thread that asks the registry; does not wait longer than so many seconds."""
        await self._thread.stop(seconds)

    def tidy_soon(self) -> None:
        """Has folders deleted that are of no more use; any thread."""
        self._thread.post(self.tidy)

    async def reload(self) -> str:
        """Forgets the quarantine, looks at the registry, and says what it did.

        Raises:
            StoreUnavailableError: it could not look, or not load.
        """
        async with self._lock:
            self.quarantine.refused.clear()
            try:
                return await self._look()
            except Exception as error:
                raise StoreUnavailableError(f"nothing was loaded: {in_words(error)}") from error

    async def pin(self, number: int) -> str:
        """Serves a version, loaded if it is not, until `unpin`.

        Raises:
            NotFoundError: the registry has no such version.
            ConflictError: it is refused; nothing has changed.
            StoreUnavailableError: it cannot be loaded just now; nothing has changed.
        """
        async with self._lock:
            self.served.serve(await self._ready(number))
            self.pinned = number
            return f"version {number} serves, and stays until unpinned"

    async def unpin(self) -> str:
        """Goes back to the policy of the settings, or to the newest version if that is a pin, too."""
        async with self._lock:
            self.pinned = None
            if self.policy.kind == "pinned":
                self.policy = Policy(kind="latest")
            return f"the policy is {self.policy} again, from the next look at the registry on"

    async def rollback(self) -> str:
        """Goes back to the version that served before, and pins it; with a canary, that is the current one.

        Raises:
            ConflictError: there is none, or it is refused; nothing has changed.
            NotFoundError: the registry has it no more.
            StoreUnavailableError: it cannot be loaded just now; nothing has changed.
        """
        async with self._lock:
            served = self.served
            if served.canary is not None and served.current is not None:
                number, withdrawn = served.current.number, served.canary.number
                served.withdraw_canary()
                done = f"version {withdrawn} is withdrawn; version {number} serves, and stays until unpinned"
            elif served.before:
                number = served.before[-1]
                served.serve(await self._ready(number))
                del served.before[-2:]  # it, and the one that it replaces
                done = f"version {number} serves again, and stays until unpinned"
            else:
                raise ConflictError(f"no version of {served.name} has served before; pin the one you want")
            self.pinned = number
            self._metrics.model_loads.labels("rolled_back").inc()
            LOG.info("rolled back", extra={"model": served.name, "version": number})
            return done

    def tidy(self) -> None:
        """Deletes fetched folders that are of no more use, but the last one's; for the model's own thread."""
        used = {version.number for version in (*self.served.live, *self.served.draining)}
        coming = () if self._coming is None else (self._coming,)
        self._source.keep({*used, *coming, *self.served.before[-1:]})

    def status(self, *, default: bool) -> ModelStatus:
        """What there is to tell of the model."""
        return ModelStatus(
            name=self.served.name,
            policy=str(self.policy),
            pinned=self.pinned,
            default=default,
            versions=self.served.versions(),
            quarantined=newest_first(self.quarantine.refused),
            unfinished=newest_first(self.quarantine.unfinished),
            last_error=self.last_error,
            public_error=self.public_error,
            last_checked_at=self.last_checked_at,
        )

    async def _look(self) -> str:
        if self.served.current is None:
            return await self._first()
        if self.pinned is not None:
            return f"version {self.pinned} is pinned: nothing newer is looked for until it is unpinned"
        newest = (self.served.canary or self.served.current).number
        told: list[str] = []
        passed: dict[int, str] = {}
        while (found := await self._newest(newest, passed)) is not None:
            try:
                return self._adopt(await self._bring_up(found))
            except VersionRefusedError as error:
                told.append(f"version {found.number} is refused: {error}")
            except UnfinishedError:
                passed[found.number] = found.fingerprint  # until the next look
        self.last_error = self.public_error = None
        told += self._waiting()
        return "; ".join([*told, f"nothing else is newer than version {newest}, which stays"])

    async def _first(self) -> str:
        """Loads the first version: the pinned one, or the newest that is good.

        Raises:
            CheckpointError: there is none, with the reason for each.
            UnfinishedError: there is none yet.
            Exception: store, disk, memory or device failed.
        """
        passed: dict[int, str] = {}
        while True:
            found = await (self._newest(0, passed) if self.pinned is None else self._pinned(self.pinned))
            if found is None or passed.get(found.number) == found.fingerprint:
                self._nothing_serves()
            try:
                self.served.serve(await self._bring_up(found))
            except VersionRefusedError:
                continue  # to an older one; a pinned one ends above
            except UnfinishedError:
                passed[found.number] = found.fingerprint
                continue
            self.tidy_soon()
            return f"version {found.number} serves"

    def _adopt(self, version: LoadedVersion) -> str:
        percent = self.policy.percent
        if percent is None:
            self.served.serve(version)
            return f"version {version.number} serves"
        self.served.put_on_trial(version, self._trial(percent=percent))
        return f"version {version.number} is on trial with {percent} % of the requests"

    async def _ready(self, number: int) -> LoadedVersion:
        """A version that an administrator wants: from memory, or loaded now."""
        version = self.served.find(number)
        if version is not None:
            return version
        name = self.served.name
        try:
            found = await self._find(number)
            if found is not None and found.lacks is not None:
                self.quarantine.wait_for(number, found.lacks)
                raise UnfinishedError(f"it is not all here yet: {found.lacks}")
            if found is not None:
                return await self._bring_up(found)
        except VersionRefusedError as error:
            raise ConflictError(f"version {number} of {name} cannot be served: {error}") from error
        except Exception as error:
            detail = f"version {number} of {name} cannot be loaded now: {in_words(error)}"
            raise StoreUnavailableError(detail) from error
        raise NotFoundError(f"the registry has no version {number} of {name}")

    async def _newest(self, above: int, passed: Mapping[int, str]) -> RegistryVersion | None:
        """The newest whole version above a number, neither refused nor passed; unfinished ones are noted."""
        known = self.quarantine.fingerprints() | dict(passed)
        newer = await self._asked(lambda: self._source.newer(above, known))
        for found in newer:
            if found.lacks is not None:
                self.quarantine.wait_for(found.number, found.lacks)
        waiting = [found.number for found in newer if found.lacks is not None]
        self.quarantine.wait_only_for({*waiting, *passed})
        return newer[-1] if len(newer) > len(waiting) else None

    async def _pinned(self, number: int) -> RegistryVersion | None:
        """A version to start with, if it is whole and not refused."""
        found = await self._find(number)
        if found is None or self.quarantine.holds(found):
            return None
        if found.lacks is not None:
            self.quarantine.wait_for(number, found.lacks)
            return None
        return found

    async def _find(self, number: int) -> RegistryVersion | None:
        return await self._asked(lambda: self._source.find(number))

    async def _asked(self, question: Callable[[], T]) -> T:
        try:
            async with limited(LOOK_SECONDS, "asking the registry"):
                answer = await self._thread.run(question)
        except Exception as error:
            self._failed(error)
            raise
        self.last_checked_at = datetime.now(UTC)
        return answer

    async def _bring_up(self, found: RegistryVersion) -> LoadedVersion:
        """Loads a version; what goes wrong is counted, logged and noted.

        Raises:
            VersionRefusedError: it is bad, and in quarantine now.
            UnfinishedError: it is not all there yet.
            Exception: anything else.
        """
        self._coming = found.number
        try:
            async with limited(LOAD_SECONDS, "fetching"):
                fetch = partial(self._source.fetch, found.number, self._thread.progress)
                folder, manifest, verified = await self._thread.run(fetch)
            version = await self._loading.bring_up(
                folder, manifest, verified=verified, fingerprint=found.fingerprint
            )
        except Exception as error:
            in_full = in_words(error)
            reason = self._source.without_place(in_full)
            if isinstance(error, UnfinishedError):
                self.quarantine.wait_for(found.number, reason)
                raise
            if not is_versions_fault(error):
                self._failed(error)
                raise
            self.quarantine.refuse(found, reason, logged=in_full)
            self.tidy_soon()
            raise VersionRefusedError(reason) from error
        finally:
            self._coming = None
        self.last_error = self.public_error = None
        self.quarantine.accept(found.number)
        self._metrics.model_loads.labels("loaded").inc()
        self._metrics.model_load_seconds.observe(version.seconds)
        return version

    def _failed(self, error: Exception) -> None:
        self.last_error = in_words(error)
        self.public_error = f"{in_public(error)}; the log of the service says more"
        self._metrics.model_loads.labels("failed").inc()
        LOG.warning(
            "the registry could not be followed; it is tried again",
            extra={"model": self.served.name, "reason": self.last_error},
        )

    def _fallen_back(self, canary: LoadedVersion, reason: str) -> None:
        self.quarantine.refuse(RegistryVersion(canary.number, canary.fingerprint), reason, logged=reason)
        self._metrics.model_loads.labels("rolled_back").inc()

    def _waiting(self) -> list[str]:
        return [
            f"version {entry.version} is not all here yet: {entry.reason}"
            for entry in newest_first(self.quarantine.unfinished)
        ]

    def _nothing_serves(self) -> NoReturn:
        self.last_error = self.public_error = None  # the registry has answered
        reasons = [f"version {entry.version}: {entry.reason}" for entry in self.quarantine.refused.values()]
        waiting = self._waiting()
        wanted = "version" if self.pinned is None else f"version {self.pinned}"
        kind = UnfinishedError if waiting else CheckpointError
        raise kind(
            f"{self._source} has no {wanted} that can be served: "
            f"{'; '.join([*waiting, *reasons]) or 'there is none, see `ebseg publish`'}"
        )
