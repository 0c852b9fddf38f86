"""Answers on their way from a device's thread to the event loop where somebody waits for them."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Failed:
    """What `attempt` answers for work that raised.

    A traceback holds the frames of all callers, too. One of them that held the error would make a cycle,
    in which the pictures of a failed batch lived on: hence the error is taken out, and into no variable.
    """

    def __init__(self, error: BaseException):
        self._errors = [error]

    @property
    def kind(self) -> type[BaseException]:
        """What kind of error it is; to be asked before it is taken."""
        return type(self._errors[0])

    def take(self) -> BaseException:
        """Hands the error over, once."""
        return self._errors.pop()


def attempt(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Failed:
    """Runs foreign work; whatever it raises, SystemExit too, comes back as a value."""
    try:
        return work(*args, **kwargs)
    except BaseException as error:
        return Failed(error)


Then = Callable[[Any, Exception | None], None]  # what gets an answer, or the error in its place


class Waiting(Generic[T]):
    """Somebody who waits for a device thread's answer: on an event loop, or wherever the answer is to go on.

    Args:
        to: the completions of the loop, which must be the running one; or what is called with the answer, on
            the thread that sends it. That may not raise, and may hold up nobody.

    Attributes:
        submitted: `time.monotonic()` when this was made.
        settled: set by the thread's side once the answer is sent or not wanted.
    """

    def __init__(self, to: "CompletionQueue | Then"):
        self._to: CompletionQueue | Then | None = to
        self._future: asyncio.Future[T] | None = None
        if isinstance(to, CompletionQueue):
            self._future = to.loop.create_future()
        self.submitted = time.monotonic()
        self.settled = False

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more. The future knows of a cancellation before its coroutine does."""
        future = self._future
        if not isinstance(self._to, CompletionQueue):
            return self.settled
        return future is None or future.cancelled()

    async def answered(self) -> T:
        """Waits for the answer, on the loop's side and once."""
        future = self._future
        if future is None:
            raise RuntimeError("a response can be waited for once")
        try:
            return await future
        finally:
            if future.done() and not future.cancelled():
                future.exception()  # marks it as seen, should a cancellation have come after it
            # An exception in the future knows this frame and those of the thread: let none of them know it.
            self._future = None
            del future

    def answer(self, value: T) -> None:
        """Sends the answer; only the first of `answer` and `fail` counts."""
        self._send(value, None)

    def fail(self, error: BaseException) -> None:
        """Sends an error; only the first of `answer` and `fail` counts."""
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            # such a one would end the event loop, look like a cancellation, or be refused by the future
            wrapped = RuntimeError(f"the work was ended by {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        self._send(None, error)

    def drop(self) -> None:
        """Notes that no answer is wanted."""
        self.settled = True
        if not isinstance(self._to, CompletionQueue):
            self._to = None  # it may know of who holds this, and so keep a picture

    def _send(self, value: T | None, error: Exception | None) -> None:
        if self.settled:
            return
        self.settled = True
        future, to = self._future, self._to
        if isinstance(to, CompletionQueue):
            if future is not None:
                to.send(future, value, error)
        elif to is not None:
            self._to = None  # it knows of all that comes next
            to(value, error)


class CompletionQueue:
    """Answers for one event loop. Those that are ready close together share one wake-up of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self._lock = threading.Lock()
        self._answers: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []

    @classmethod
    def here(cls, known: "CompletionQueue | None") -> "CompletionQueue":
        """The known one if it is of the running event loop, else a new one."""
        loop = asyncio.get_running_loop()
        return known if known is not None and known.loop is loop else cls(loop)

    def send(self, future: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
        """Resolves the future on its loop, from any thread. With the loop closed, nobody waits for it."""
        with self._lock:
            self._answers.append((future, value, error))
            if len(self._answers) > 1:
                return  # the first one has woken the loop, and it has not come yet
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # what a closed loop raises
            with self._lock:
                self._answers.clear()

    def _deliver(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
        for future, value, error in answers:
            if future.done():  # cancelled meanwhile
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
