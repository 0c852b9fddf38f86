"""Follows a registry with one model: watches, obeys its serving.json, tries new versions, refuses bad ones.

What changes versions holds the lock, one at a time. A version that is bad goes into quarantine, with the
reason; one that is not all there yet is waited for; a store, disk, memory or device that fails says nothing
about the version, and is tried again.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import NoReturn

from model.errors import CheckpointError, UnfinishedError
from model.storage.serving_state import ServingState
from service.errors import NotFoundError, NotReadyError, StoreUnavailableError
from service.hot_loading.arrivals import Arrivals, VersionRefusedError
from service.hot_loading.canary import Trial
from service.hot_loading.loaded import LoadedVersion
from service.hot_loading.loader import Loading, in_words, may_pass
from service.hot_loading.quarantine import newest_first
from service.hot_loading.registry import Policy, RegistryModel, RegistryVersion
from service.hot_loading.served import Served
from service.hot_loading.status import Asked, ModelStatus
from service.observability.metrics import Metrics

LOG = logging.getLogger(__name__)
JITTER = 0.2  # of the time between two looks, so that many servers do not look at once
NEWS_SPREAD = 0.1  # of that time, over which looks at announced news are spread for the same reason
LONGEST_BACK_OFF = 60.0  # seconds between two looks at a registry that does not answer


class Follower(Arrivals):
    """One model of a registry, with a thread that asks for it: it waits for no other model's answers.

    Args:
        served: the model; it gets its versions from here.
        policy: which version is to serve, as long as the registry's serving.json says nothing.
        source: its place in the registry.
        loading: brings versions up.
        metrics: of the service.
        trial: makes a canary's trial with so many percent of the requests.

    Attributes:
        policy: that is followed: of serving.json where there is one.
        own_policy: of the settings.
        state: what serving.json asks for.
        lock: whoever changes versions holds it.
        looked: whether the first look has ended, well or not.
        failure: what the last look ended with; None if it ended well.
        on_look: called after each look.
        announce: tells other processes that there is something new.
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
        super().__init__(served, source, loading, metrics)
        self.own_policy = policy
        self.policy = policy
        self.state: ServingState | None = None
        self.trial = trial
        self.looked = False
        self.failure: Exception | None = None
        self.on_look: Callable[[], None] = lambda: None
        self.announce: Callable[[], None] = lambda: None
        self.lock = asyncio.Lock()
        self._called = asyncio.Event()
        self._was_called = False  # others know already what the look finds
        self._announced: RegistryVersion | None = None
        served.on_fall_back = self._fallen_back

    async def follow(self, seconds: float) -> None:
        """Looks at the registry at once and then every so many seconds; more seldom while it fails.

        Sooner after `look_soon`.
        """
        failures, was_called = 0, False
        while True:
            try:
                async with self.lock:
                    self._was_called = was_called
                    try:
                        await self._look_and_count()
                    finally:
                        self._was_called = False
                failures, self.failure = 0, None
            except UnfinishedError as error:  # the registry answers
                failures, self.failure = 0, error
            except Exception as error:  # noted where it was raised
                failures, self.failure = min(failures + 1, 10), error
            self.looked = True
            self.on_look()
            wait = min(seconds * 2**failures, max(seconds, LONGEST_BACK_OFF))
            was_called = await self._pause(
                wait * random.uniform(1 - JITTER, 1 + JITTER), seconds * NEWS_SPREAD
            )

    def look_soon(self) -> None:
        """Has the next look come soon: another process has found something new."""
        self._called.set()

    async def _pause(self, seconds: float, spread: float) -> bool:
        """Whether `look_soon` ended it."""
        try:
            async with asyncio.timeout(seconds):
                await self._called.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(spread * random.random())
        self._called.clear()
        return True

    def _tell_others(self) -> None:
        if self.looked and not self._was_called:
            self.announce()

    @property
    def pinned(self) -> int | None:
        """The version that it stays at."""
        return self.policy.version if self.policy.kind == "pinned" else None

    @property
    def obeyed(self) -> bool:
        """Whether the versions that serve are those that are asked for."""
        current, canary, asked = self.served.current, self.served.canary, self.policy
        if current is None:
            return False
        if asked.kind == "pinned":
            return current.number == asked.version and canary is None
        if asked.canary is not None:
            tried = None if canary is None else canary.number
            return (current.number, tried) == (asked.version, asked.canary)
        return True

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
        return self.source.without_place(in_words(self.failure))

    async def reload(self) -> str:
        """Forgets the quarantine, looks at the registry, and says what it did.

        Raises:
            StoreUnavailableError: it could not look, or not load.
        """
        async with self.lock:
            self.quarantine.clear()
            self.announce()
            try:
                return await self._look_and_count()
            except Exception as error:
                raise StoreUnavailableError(f"nothing was loaded: {in_words(error)}") from error

    def status(self, *, default: bool) -> ModelStatus:
        """What there is to tell of the model."""
        return ModelStatus(
            name=self.served.name,
            policy=str(self.policy),
            pinned=self.pinned,
            asked=None if self.state is None else Asked.of(self.state, obeyed=self.obeyed),
            default=default,
            versions=self.served.versions(),
            quarantined=newest_first(self.quarantine.refused),
            unfinished=newest_first(self.quarantine.unfinished),
            last_error=self.last_error,
            public_error=self.public_error,
            last_checked_at=self.last_checked_at,
        )

    def take_in(self, state: ServingState | None) -> None:
        """Follows another state from now on; None leaves it to the settings."""
        if state != self.state:
            LOG.info(
                "something else is asked to serve",
                extra={"model": self.served.name, "reason": str(state or "the settings count")},
            )
            self._tell_others()
        self.state = state
        self.policy = self.own_policy
        if state is not None:
            self.policy = Policy(
                kind=state.policy, version=state.version, percent=state.percent, canary=state.canary
            )
        self.count()

    def count(self) -> None:
        """Tells metrics what is followed."""
        name = self.served.name
        self.metrics.serving_revision.labels(name).set(0 if self.state is None else self.state.revision)
        self.metrics.serving_obeyed.labels(name).set(self.obeyed)

    async def _look_and_count(self) -> str:
        try:
            done = await self._look()
            self.metrics.load_fails(self.served.name, None)
            return done
        finally:
            self.count()

    async def _look(self) -> str:
        """Makes what serves what is asked for, as far as that goes, and says what it did.

        Raises:
            CheckpointError: no version can serve.
            UnfinishedError: one that is asked for is not all here yet.
            Exception: store, disk, memory or device failed; what served before goes on.
        """
        look = await self.asked(self.source.look)
        self.take_in(look.state)
        self.quarantine.forget_all_but(look.numbers)
        if self.served.current is None:
            done = await self._first(look.numbers)
            if self.policy.canary is None:
                return done
        try:
            if self.policy.kind == "pinned" and self.policy.version is not None:
                return await self._stay_at(self.policy.version)
            if self.policy.canary is not None:
                return await self._try_beside(self.policy)
        except (VersionRefusedError, NotFoundError) as error:
            self.last_error = f"what is asked for cannot be served: {error}"
            self.public_error = "what is asked for cannot be served; GET /v1/models/NAME tells why"
            return self.last_error
        self._end_held_trial()
        return await self._follow_newest(look.numbers)

    async def _stay_at(self, number: int) -> str:
        current = self.served.current
        if current is not None and current.number == number:
            self.served.withdraw_canary()
            self.last_error = self.public_error = None
            return f"version {number} is pinned: nothing newer is looked for until it is unpinned"
        self.served.serve(await self.wanted(number))
        self.tidy_soon()
        return f"version {number} serves, as it is pinned"

    async def _try_beside(self, asked: Policy) -> str:
        """A canary that somebody named, beside the version that he saw serve."""
        served, percent = self.served, asked.percent or 0
        base, number = asked.version or 0, asked.canary or 0
        if served.current is None or served.current.number != base:
            served.serve(await self.wanted(base))
        trial = served.trial
        if served.canary is not None and served.canary.number == number and trial is not None and trial.held:
            trial.percent = percent
        else:
            served.put_on_trial(await self.wanted(number), self.trial(percent=percent, held=True))
        self.last_error = self.public_error = None
        return f"version {number} is tried with {percent} % of the requests, until somebody decides"

    def _end_held_trial(self) -> None:
        """What becomes of a named canary when the policy is one for all versions again."""
        served = self.served
        if served.canary is None or served.trial is None or not served.trial.held:
            return
        if self.policy.percent is None and served.current is not None:
            newer = served.canary.number > served.current.number
            if newer:
                served.serve(served.canary)
                return
        served.withdraw_canary()

    async def _follow_newest(self, numbers: Sequence[int]) -> str:
        current = self.served.current
        if current is None:
            raise NotReadyError("no version serves")
        newest = (self.served.canary or current).number
        refused: list[str] = []
        passed: dict[int, str] = {}
        while (found := await self.newest(newest, passed, numbers)) is not None:
            if found != self._announced:
                self._announced = found
                self._tell_others()
            try:
                return self._adopt(await self.bring_up(found))
            except VersionRefusedError as error:
                refused.append(f"version {found.number} is refused: {error}")
            except UnfinishedError:
                passed[found.number] = found.fingerprint  # until the next look
        self.last_error = self.public_error = None
        refused += self._waiting()
        return "; ".join([*refused, f"nothing else is newer than version {newest}, which stays"])

    async def _first(self, numbers: Sequence[int]) -> str:
        """Loads the first version: the pinned one, or the newest that is good.

        Raises:
            CheckpointError: there is none, with the reason for each.
            UnfinishedError: there is none yet.
            Exception: store, disk, memory or device failed.
        """
        passed: dict[int, str] = {}
        while True:
            asked = self.policy.version
            found = await (self.newest(0, passed, numbers) if asked is None else self.good(asked))
            if found is None or passed.get(found.number) == found.fingerprint:
                self._nothing_serves()
            try:
                self.served.serve(await self.bring_up(found))
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
        self.served.put_on_trial(version, self.trial(percent=percent))
        return f"version {version.number} is on trial with {percent} % of the requests"

    def _fallen_back(self, canary: LoadedVersion, reason: str) -> None:
        self.quarantine.refuse(RegistryVersion(canary.number, canary.fingerprint), reason, logged=reason)
        self.metrics.model_loads.labels(self.served.name, "rolled_back").inc()

    def _waiting(self) -> list[str]:
        return [
            f"version {entry.version} is not all here yet: {entry.reason}"
            for entry in newest_first(self.quarantine.unfinished)
        ]

    def _nothing_serves(self) -> NoReturn:
        self.last_error = self.public_error = None  # the registry has answered
        reasons = [f"version {entry.version}: {entry.reason}" for entry in self.quarantine.refused.values()]
        waiting = self._waiting()
        wanted = "version" if self.policy.version is None else f"version {self.policy.version}"
        kind = UnfinishedError if waiting else CheckpointError
        raise kind(
            f"{self.source} has no {wanted} that can be served: "
            f"{'; '.join([*waiting, *reasons]) or 'there is none, see `ebseg publish`'}"
        )
