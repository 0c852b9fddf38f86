"""A version that is loaded, and the leases that keep it loaded."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from service.hot_loading.canary import AnswerResult
from service.scheduling.engine import Engine, ModelInfo


class LoadedVersion:
    """One version on all devices. Once it is retired and its last lease is back, it is freed.

    Args:
        engines: one a device, at least one.
        seconds: that loading took.
        fingerprint: of the manifest it was loaded by; empty outside of a registry.
    """

    def __init__(self, engines: Sequence[Engine], *, seconds: float = 0.0, fingerprint: str = ""):
        self.engines = tuple(engines)
        self.info = self.engines[0].info
        self.devices = tuple(engine.info.device for engine in self.engines)
        self.seconds = seconds
        self.fingerprint = fingerprint
        self.loaded_at = datetime.now(UTC)
        self.in_flight = 0
        self.idle = False  # retired, and nobody uses it any more
        self._on_idle: Callable[[LoadedVersion], None] | None = None
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """The version's number."""
        return self.info.version

    def take(self) -> None:
        """Counts one more user. Only of a version that is not retired."""
        with self._lock:
            self.in_flight += 1

    def give_back(self) -> None:
        """Counts one user less; any thread."""
        with self._lock:
            self.in_flight -= 1
        self._free_if_idle()

    def retire(self, on_idle: Callable[["LoadedVersion"], None]) -> None:
        """Lets its users finish; `on_idle` is then called once, on whichever thread the last one ends."""
        with self._lock:
            self._on_idle = on_idle
        self._free_if_idle()

    def revive(self) -> bool:
        """Takes retirement back; False if it is too late."""
        with self._lock:
            if not self.idle:
                self._on_idle = None
            return not self.idle

    def take_engines(self) -> tuple[Engine, ...]:
        """Gives the engines away, for whoever frees them."""
        engines, self.engines = self.engines, ()
        return engines

    def _free_if_idle(self) -> None:
        with self._lock:
            if self._on_idle is None or self.in_flight or self.idle:
                return
            self.idle = True
            on_idle = self._on_idle
        on_idle(self)


class Lease:
    """The version that one request is answered by, from admission to the end of its answer.

    Args:
        version: already taken for this lease.
        on_answer: notified of what became of the answer, and of the device's seconds if the whole model ran.
        on_trial: whether the version is a canary that got the request in its turn.

    Attributes:
        info: of the version.
        engines: one a device, in the order of the devices.
    """

    def __init__(
        self,
        version: LoadedVersion,
        on_answer: Callable[[LoadedVersion, AnswerResult, float | None], None],
        *,
        on_trial: bool = False,
    ):
        self.on_trial = on_trial
        self.info: ModelInfo = version.info
        self.engines = version.engines
        self._version = version
        self._on_answer = on_answer
        self._released = False
        self._counted = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def count_answer(self, result: AnswerResult, seconds: float | None = None) -> None:
        """Tells what became of the answer, for a canary's trial; on the event loop's thread, once.

        Args:
            result: not good only by faults of the service, not by a client's or by a queue's.
            seconds: that devices took, if the whole model ran.
        """
        if not self._counted:
            self._counted = True
            self._on_answer(self._version, result, seconds)

    def release(self) -> None:
        """Gives the version back; any thread, and more than once does no harm."""
        with self._lock:
            if self._released:
                return
            self._released = True
        self.engines = ()
        self._version.give_back()
