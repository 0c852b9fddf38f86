"""One model while it is served: which version answers, which is on trial, which only finish what they began.

Everything here runs on the event loop's thread, but for what `LoadedVersion` says of itself. A swap is one
assignment without a wait inside: a request meets the old version or the new one, and keeps it.
"""

import asyncio
import logging
from collections.abc import Callable

from service.errors import NotFoundError, NotReadyError
from service.hot_loading.canary import AnswerResult, Trial, TrialResult
from service.hot_loading.loaded import Lease, LoadedVersion
from service.hot_loading.status import VersionStatus
from service.observability.metrics import Metrics
from service.scheduling.engine import Engine

LOG = logging.getLogger(__name__)
MOST_REMEMBERED = 50  # versions that served before


class Served:
    """The versions of one model that are in memory.

    Args:
        name: of the model.
        metrics: of the service.
        free: frees the engines of a version that nobody uses any more; called from any thread.

    Attributes:
        current: the version that answers; None before the first one is loaded.
        canary: the version on trial beside it, if there is one.
        before: numbers of versions that were current, the last one at the end.
        on_fall_back: notified of a canary that failed, with the reason.
    """

    def __init__(self, name: str, metrics: Metrics, free: Callable[[tuple[Engine, ...]], None]):
        self.name = name
        self.current: LoadedVersion | None = None
        self.canary: LoadedVersion | None = None
        self.before: list[int] = []
        self.on_fall_back: Callable[[LoadedVersion, str], None] = lambda version, reason: None
        self._trial: Trial | None = None
        self._end_of_trial: asyncio.TimerHandle | None = None
        self._draining: list[LoadedVersion] = []
        self._metrics = metrics
        self._free = free

    @property
    def live(self) -> list[LoadedVersion]:
        """Versions that requests can get: the current one, then the canary."""
        return [version for version in (self.current, self.canary) if version is not None]

    @property
    def draining(self) -> list[LoadedVersion]:
        """Versions that only finish what they began."""
        return [version for version in self._draining if not version.idle]

    def lease(self, version: int | None, *, stable: bool = False) -> Lease:
        """Takes a version for one request.

        Args:
            version: that it names; None leaves the choice between current version and canary to the trial.
            stable: the current version, since the canary has failed the request.

        Raises:
            NotReadyError: none is loaded yet.
            NotFoundError: the version is not live.
        """
        if self.current is None:
            raise NotReadyError(f"no version of the model {self.name} is loaded yet; GET /readyz tells why")
        chosen = self.current if stable else self._choose(version, self.current)
        chosen.take()
        return Lease(chosen, self._count_answer, on_trial=version is None and chosen is self.canary)

    def find(self, number: int) -> LoadedVersion | None:
        """A version that is in memory and can serve, draining ones included, which then drain no more."""
        for version in (*self.live, *self._draining):
            if version.number == number and version.revive():
                return version
        return None

    def serve(self, version: LoadedVersion) -> None:
        """Swaps: from here on, requests get this version; another one on trial is withdrawn."""
        old = self.current
        if version is self.canary:
            self._end_trial()
        else:
            self.withdraw_canary()
        if version is old:
            return
        self.current = version
        self._announce(version, "current")
        if old is not None:
            self.before = [*self.before, old.number][-MOST_REMEMBERED:]
            self._retire(old)

    def put_on_trial(self, version: LoadedVersion, trial: Trial) -> None:
        """Gives a version a part of the requests; another one on trial is withdrawn."""
        self.withdraw_canary()
        self.canary, self._trial = version, trial
        if not trial.held:
            loop = asyncio.get_running_loop()
            self._end_of_trial = loop.call_later(trial.seconds, self._time_is_up, trial)
        self._announce(version, "canary")

    @property
    def trial(self) -> Trial | None:
        """The canary's, if there is one."""
        return self._trial

    def dismiss(self, version: LoadedVersion) -> None:
        """Lets a version go that `find` or the loader gave, and that is not to serve after all."""
        if version not in self.live:
            self._draining = [*(other for other in self.draining if other is not version), version]
            version.retire(self._on_idle)

    def withdraw_canary(self) -> None:
        """Gives all requests back to the current version."""
        canary = self._end_trial()
        if canary is not None:
            self._retire(canary)

    def retire_all(self) -> None:
        """Lets all versions go, for the end."""
        self.withdraw_canary()
        current, self.current = self.current, None
        if current is not None:
            self._retire(current)

    def versions(self) -> list[VersionStatus]:
        """What there is to tell of the versions in memory, the current one first."""
        current = [VersionStatus.of(self.current, "current")] if self.current else []
        canary = [VersionStatus.of(self.canary, "canary")] if self.canary else []
        return [*current, *canary, *(VersionStatus.of(version, "draining") for version in self.draining)]

    def _choose(self, number: int | None, current: LoadedVersion) -> LoadedVersion:
        if number is None:
            if self.canary is not None and self._trial is not None and self._trial.next_is_canary():
                return self.canary
            return current
        for version in self.live:
            if version.number == number:
                return version
        numbers = ", ".join(str(version.number) for version in self.live)
        raise NotFoundError(f"this version of {self.name} is not loaded; loaded: {numbers}")

    def _end_trial(self) -> LoadedVersion | None:
        canary, self.canary, self._trial = self.canary, None, None
        if self._end_of_trial is not None:
            self._end_of_trial.cancel()
            self._end_of_trial = None
        return canary

    def _time_is_up(self, trial: Trial) -> None:
        if trial is self._trial and self.canary is not None:
            self._settle(self.canary, trial, trial.at_end())

    def _count_answer(self, version: LoadedVersion, result: AnswerResult, seconds: float | None) -> None:
        canary, trial = self.canary, self._trial
        if canary is None or trial is None or (version is not canary and version is not self.current):
            return
        self._settle(canary, trial, trial.count(result, canary=version is canary, seconds=seconds))

    def _settle(self, canary: LoadedVersion, trial: Trial, decision: TrialResult | None) -> None:
        if decision == "promote":
            LOG.info(
                "canary takes over",
                extra={"model": self.name, "version": canary.number, "reason": str(trial)},
            )
            self.serve(canary)
        elif decision == "fall back":
            self.withdraw_canary()
            self.on_fall_back(canary, f"as a canary, {trial}")

    def _announce(self, version: LoadedVersion, role: str) -> None:
        self._draining = [other for other in self.draining if other is not version]
        info = version.info
        self._metrics.model_info.labels(info.name, str(info.version), info.digest).set(1)
        self._metrics.version_came(info, version.devices, info.weight_bytes)
        what = {"model": info.name, "version": info.version, "digest": info.digest, "role": role}
        how = {"untrained": info.untrained, "device": ",".join(version.devices), "dtype": info.dtype}
        LOG.info("model loaded", extra=what | how)

    def _retire(self, version: LoadedVersion) -> None:
        info = version.info
        self._metrics.model_info.remove(info.name, str(info.version), info.digest)
        self._draining = [*self.draining, version]
        version.retire(self._on_idle)

    def _on_idle(self, version: LoadedVersion) -> None:
        if not any(other.number == version.number for other in (*self.live, *self.draining)):
            self._metrics.version_gone(version.info)
        LOG.info("version freed", extra={"model": self.name, "version": version.number})
        self._free(version.take_engines())
