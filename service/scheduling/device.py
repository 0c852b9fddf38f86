"""One device: its thread, which takes step after step, and what is asked of it alone."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from service.scheduling.delivery import CompletionQueue, Failed, attempt
from service.scheduling.step_runner import StepRunner
from service.scheduling.work import DeviceCall, EmbedStep, Step

LOG = logging.getLogger(__name__)
T = TypeVar("T")


class StepSource(Protocol):
    """What a device needs of its scheduler."""

    @property
    def ageing_s(self) -> float:
        """After so many seconds, work goes before all that came later."""

    def completions_here(self) -> CompletionQueue:
        """The answers' way to the running event loop."""

    def put(self, waiter: DeviceCall[Any]) -> None:
        """Puts a call into the queue."""

    async def answered(self, waiter: DeviceCall[Any]) -> Any:
        """Waits for a call's answer."""

    def next_step(self, device: "Device", embedded: bool, seconds: float) -> Step | None:
        """The device's next step, however long that takes to come; None at the end."""

    def broken(self, step: Step, error: BaseException) -> None:
        """Leaves nobody waiting whose step ended by a fault of ours."""

    def recent_shapes(self) -> list[tuple[int, int]]:
        """Network rows and columns of recent pictures."""


class Device:
    """One device and its thread.

    Args:
        scheduler: whose queue it takes from.
        name: of the device.
        index: of the device, in its scheduler and in every version's engines.
        runner: runs its steps.

    Attributes:
        progress: when its running step began, `time.monotonic()`; None if none runs.
        ended: whether the thread has nothing more to do.
    """

    def __init__(self, scheduler: StepSource, name: str, index: int, runner: StepRunner):
        self.name = name
        self.index = index
        self.progress: float | None = None
        self.ended = False
        self._scheduler = scheduler
        self._runner = runner
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T], *, since: float | None = None) -> T:
        """Runs other work on the device's thread, when its turn comes.

        Cancelling the caller takes the work out if it has not begun.

        Args:
            work: to be run.
            since: when what it is a part of began, `time.monotonic()`. It has waited since then: of several
                calls after one another the first alone waits for all that came before.

        Raises:
            NotReadyError: the scheduler was stopped.
            OutOfMemoryError: the work ran out of memory.
            Exception: whatever else the work raises; what is no Exception comes as a RuntimeError.
        """
        scheduler = self._scheduler
        waiting: DeviceCall[T] = DeviceCall(
            scheduler.completions_here(), self.index, work, scheduler.ageing_s, since
        )
        scheduler.put(waiting)
        result: T = await scheduler.answered(waiting)
        return result

    def recent_shapes(self) -> list[tuple[int, int]]:
        """As of the scheduler: any device may get any picture."""
        return self._scheduler.recent_shapes()

    def stalled_for(self) -> float:
        """Seconds since the running step began; 0 if none runs."""
        progress = self.progress
        return 0.0 if progress is None else time.monotonic() - progress

    def start(self) -> None:
        """Starts the thread: a daemon, since work that hangs must not keep the process from ending."""
        self._thread = threading.Thread(target=self._run, name=f"ebseg-{self.name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the thread, which has nothing left to do."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        ran: tuple[bool, float] | None = (False, 0.0)
        while ran is not None:
            ran = self._turn(*ran)

    def _turn(self, embedded: bool, seconds: float) -> tuple[bool, float] | None:
        """One step: whether it was for text, and its seconds; None at the end.

        Its variables, and pictures with them, end with it.

        Args:
            embedded, seconds: what the turn before answered.
        """
        step = self._scheduler.next_step(self, embedded, seconds)
        if step is None:
            return None
        began = time.monotonic()
        done = attempt(self._runner.run, step)
        if isinstance(done, Failed):
            error = done.take()
            LOG.error("device %s: a step ended unexpectedly", self.name, exc_info=error)
            self._scheduler.broken(step, error)
        return isinstance(step, EmbedStep), time.monotonic() - began
