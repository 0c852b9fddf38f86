"""Versions on their way from a registry into memory: asked for, fetched, loaded, or refused, and why."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from model.errors import NoSpaceError, UnfinishedError
from service.errors import ConflictError, NotFoundError, StoreUnavailableError
from service.hot_loading.loaded import LoadedVersion
from service.hot_loading.loader import (
    LOAD_SECONDS,
    LoaderThread,
    Loading,
    in_public,
    in_words,
    is_versions_fault,
    limited,
)
from service.hot_loading.quarantine import Quarantine
from service.hot_loading.registry import RegistryModel, RegistryVersion
from service.hot_loading.served import Served
from service.observability.metrics import Metrics

LOG = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_SECONDS = 120.0  # a question to the registry that takes longer hangs


class VersionRefusedError(Exception):
    """A version was put into quarantine."""


class UnservableError(ConflictError):
    """A version that an administrator wants is bad, or not all here yet."""


class Arrivals:
    """The versions of one model of a registry, with a thread that asks for it.

    Args:
        served: the model; it gets its versions from here.
        source: its place in the registry.
        loading: brings versions up.
        metrics: of the service.

    Attributes:
        quarantine: versions that are not served, and why.
        last_error: why the registry or a load failed last, with all that the log says; None if it did not.
        public_error: the same, as anybody may know it.
        last_checked_at: when the registry last answered.
        thread: asks the registry, and fetches.
    """

    def __init__(self, served: Served, source: RegistryModel, loading: Loading, metrics: Metrics):
        self.served = served
        self.source = source
        self.metrics = metrics
        self.quarantine = Quarantine(served.name, metrics)
        self.last_error: str | None = None
        self.public_error: str | None = None
        self.last_checked_at: datetime | None = None
        self.thread = LoaderThread(f"ebseg-registry-{served.name}")
        self._loading = loading
        self._coming: int | None = None  # the version that is being loaded

    async def stop(self, seconds: float) -> None:
        """Ends the thread that asks the registry; does not wait longer than so many seconds."""
        await self.thread.stop(seconds)

    def tidy_soon(self) -> None:
        """Has folders deleted that are of no more use; any thread."""
        self.thread.post(self.tidy)

    def tidy(self) -> None:
        """Deletes fetched folders that are of no more use, but the last one's; for the model's own thread."""
        used = {version.number for version in (*self.served.live, *self.served.draining)}
        coming = () if self._coming is None else (self._coming,)
        self.source.keep({*used, *coming, *self.served.before[-1:]})

    async def ready(self, number: int) -> LoadedVersion:
        """A version that an administrator wants: from memory, or loaded now."""
        version = self.served.find(number)
        if version is not None:
            return version
        name = self.served.name
        try:
            found = await self._find(number)
            if found is not None and found.lacks is not None:
                self.quarantine.wait_for(number, found.lacks)
                raise UnservableError(f"version {number} of {name} is not all here yet: {found.lacks}")
            if found is not None:
                return await self.bring_up(found)
        except VersionRefusedError as error:
            raise UnservableError(f"version {number} of {name} cannot be served: {error}") from error
        except UnservableError:
            raise
        except Exception as error:
            detail = f"version {number} of {name} cannot be loaded now: {in_words(error)}"
            raise StoreUnavailableError(detail) from error
        raise NotFoundError(f"the registry has no version {number} of {name}")

    async def wanted(self, number: int) -> LoadedVersion:
        """A version that is asked for: from memory, or loaded now, unless it is refused as it lies there."""
        version = self.served.find(number)
        if version is not None:
            return version
        found = await self._find(number)
        if found is None:
            raise NotFoundError(f"the registry has no version {number} of {self.served.name}")
        if self.quarantine.holds(found):
            raise VersionRefusedError(f"version {number}: {self.quarantine.refused[number].reason}")
        if found.lacks is not None:
            self.quarantine.wait_for(number, found.lacks)
            raise UnfinishedError(f"version {number} is not all here yet: {found.lacks}")
        return await self.bring_up(found)

    async def newest(
        self, above: int, passed: Mapping[int, str], numbers: Sequence[int]
    ) -> RegistryVersion | None:
        """The newest whole version above a number, neither refused nor passed; unfinished ones are noted."""
        known = self.quarantine.fingerprints() | dict(passed)
        newer = await self.asked(lambda: self.source.newer(above, known, numbers))
        for found in newer:
            if found.lacks is not None:
                self.quarantine.wait_for(found.number, found.lacks)
        waiting = [found.number for found in newer if found.lacks is not None]
        self.quarantine.wait_only_for({*waiting, *passed})
        return newer[-1] if len(newer) > len(waiting) else None

    async def good(self, number: int) -> RegistryVersion | None:
        """A version to start with, if it is whole and not refused."""
        found = await self._find(number)
        if found is None or self.quarantine.holds(found):
            return None
        if found.lacks is not None:
            self.quarantine.wait_for(number, found.lacks)
            return None
        return found

    async def _find(self, number: int) -> RegistryVersion | None:
        return await self.asked(lambda: self.source.find(number))

    async def asked(self, question: Callable[[], T]) -> T:
        """What the registry answers, on the model's own thread.

        Raises:
            Exception: it does not, which is noted and counted.
        """
        try:
            async with limited(LOOK_SECONDS, "asking the registry"):
                answer = await self.thread.run(question)
        except Exception as error:
            self.metrics.registry_up.labels(self.served.name).set(0)
            self._failed(error)
            raise
        self.metrics.registry_up.labels(self.served.name).set(1)
        self.last_checked_at = datetime.now(UTC)
        return answer

    async def bring_up(self, found: RegistryVersion) -> LoadedVersion:
        """Loads a version; what goes wrong is counted, logged and noted.

        Raises:
            VersionRefusedError: it is bad, and in quarantine now.
            UnfinishedError: it is not all there yet.
            Exception: anything else.
        """
        self._coming = found.number
        try:
            async with limited(LOAD_SECONDS, "fetching"):
                fetch = partial(self.source.fetch, found.number, self.thread.progress)
                folder, manifest, verified = await self.thread.run(fetch)
            version = await self._loading.bring_up(
                folder, manifest, verified=verified, fingerprint=found.fingerprint
            )
        except Exception as error:
            in_full = in_words(error)
            reason = self.source.without_place(in_full)
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
        self.metrics.model_loads.labels(self.served.name, "loaded").inc()
        self.metrics.load_fails(self.served.name, None)
        self.metrics.model_load_seconds.observe(version.seconds)
        return version

    def _failed(self, error: Exception) -> None:
        self.last_error = in_words(error)
        self.public_error = f"{in_public(error)}; the log of the service says more"
        full = isinstance(error, NoSpaceError)
        result = "no_space" if full else "failed"
        self.metrics.model_loads.labels(self.served.name, result).inc()
        self.metrics.load_fails(self.served.name, result)
        LOG.warning(
            "a version finds no space on the disk; it is tried again"
            if full
            else "the registry could not be followed; it is tried again",
            extra={"model": self.served.name, "reason": self.last_error},
        )
