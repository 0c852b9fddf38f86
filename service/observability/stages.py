"""When the stages of a request happened, for whoever traces it.

A stage is worked on wherever it belongs, on the event loop, a picture thread or a device's thread, and it is
notified of the moment it ends. Without a collector nobody listens, and nothing is measured.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage that has ended.

    Attributes:
        name: one of `metrics.STAGES`.
        began_ns, ended_ns: Unix time, nanoseconds.
        error: what kind of error ended it; None if it went well.
    """

    name: str
    began_ns: int
    ended_ns: int
    error: type[BaseException] | None = None


StageListener = Callable[[Stage], None]  # called on the thread where the stage ended
stage_listener: ContextVar[StageListener | None] = ContextVar("ebseg_stage_listener", default=None)


_NOBODY: AbstractContextManager[None] = nullcontext()


def stage(name: str) -> AbstractContextManager[None]:
    """Runs its block as a stage of the request in whose context it is; an error goes on to the caller."""
    listener = stage_listener.get()
    return _NOBODY if listener is None else _timed(name, listener)


@contextmanager
def _timed(name: str, listener: StageListener) -> Iterator[None]:
    began_ns = time.time_ns()
    try:
        yield
    except BaseException as error:
        listener(Stage(name, began_ns, time.time_ns(), type(error)))
        raise
    listener(Stage(name, began_ns, time.time_ns()))
