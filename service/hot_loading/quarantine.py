"""Versions of a model that are not served: bad ones, and those of which not everything is here yet."""

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from service.hot_loading.registry import RegistryVersion
from service.hot_loading.status import Quarantined, Unfinished
from service.observability.metrics import Metrics

Entry = TypeVar("Entry")
LOG = logging.getLogger(__name__)
MOST_QUARANTINED = 50


class Quarantine:
    """What is refused until it changes, and what is waited for.

    Args:
        model: its name.
        metrics: of the service.

    Attributes:
        refused, unfinished: by number.
    """

    def __init__(self, model: str, metrics: Metrics):
        self.refused: dict[int, Quarantined] = {}
        self.unfinished: dict[int, Unfinished] = {}
        self._model = model
        self._metrics = metrics
        self._loaded = 0  # the version that was loaded last
        self._count()

    def fingerprints(self) -> dict[int, str]:
        """Those of the refused versions."""
        return {number: entry.fingerprint for number, entry in self.refused.items()}

    def holds(self, found: RegistryVersion) -> bool:
        """Whether a version is refused as it lies there."""
        return found.number in self.refused and self.refused[found.number].fingerprint == found.fingerprint

    def refuse(self, found: RegistryVersion, reason: str, *, logged: str) -> None:
        """Leaves a version alone until its fingerprint changes.

        Args:
            found: the version.
            reason: for everybody.
            logged: for the log, which may tell places.
        """
        number = found.number
        self.unfinished.pop(number, None)
        self.refused[number] = Quarantined(
            version=number, reason=reason, since=datetime.now(UTC), fingerprint=found.fingerprint
        )
        while len(self.refused) > MOST_QUARANTINED:
            del self.refused[min(self.refused)]
        self._count()
        self._metrics.model_loads.labels(self._model, "quarantined").inc()
        LOG.error("version refused", extra={"model": self._model, "version": number, "reason": logged})

    def accept(self, number: int) -> None:
        """Forgets a version that serves."""
        self._loaded = number
        self.refused.pop(number, None)
        self.unfinished.pop(number, None)
        self._count()

    def forget_all_but(self, numbers: Collection[int]) -> None:
        """Forgets refused versions that are in the registry no more."""
        for number in self.refused.keys() - set(numbers):
            del self.refused[number]
        self._count()

    def clear(self) -> None:
        """Gives all refused versions another chance."""
        self.forget_all_but(())

    def wait_for(self, number: int, lacks: str) -> None:
        """Notes what a version lacks; how long that is so goes on counting."""
        known = self.unfinished.get(number)
        if known is None:
            what = {"model": self._model, "version": number, "reason": lacks}
            LOG.info("version is not all here yet", extra=what)
        since = datetime.now(UTC) if known is None else known.since
        self.unfinished[number] = Unfinished(version=number, reason=lacks, since=since)
        self._count()

    def wait_only_for(self, numbers: Collection[int]) -> None:
        """Forgets unfinished versions that are gone, whole by now, or older than what serves."""
        for number in self.unfinished.keys() - set(numbers):
            del self.unfinished[number]
        self._count()

    def _count(self) -> None:
        self._metrics.model_unfinished.labels(self._model).set(len(self.unfinished))
        new = [number for number in self.refused if number >= self._loaded]
        self._metrics.model_refused.labels(self._model).set(len(new))


def newest_first(entries: Mapping[int, Entry]) -> list[Entry]:
    """What stands under version numbers, the highest first."""
    return [entries[number] for number in sorted(entries, reverse=True)]
