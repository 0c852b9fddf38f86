"""A picture's way through the engine's process, from thread to thread.

It is prepared, stands in the devices' queue, and what they made of it is put into the memory that the worker
reads. The event loop begins it and hears of its end; between them it has no part, since to wake it takes
longer than any of the steps.
"""

import threading
from collections.abc import Callable
from functools import partial

from service.scheduling.deadline import Deadline
from service.scheduling.delivery import CompletionQueue, Failed, Waiting, attempt
from service.scheduling.engine import EngineResult
from service.scheduling.picture_threads import PictureThreads
from service.scheduling.scheduler import Scheduler
from service.scheduling.work import Request
from service.segmentation.door import Computed, Question
from service.segmentation.local_door import LocalTurn
from service.workers.arena import Arena, ArrayPlace

Stored = tuple[Computed, list[ArrayPlace]]  # what was computed, and where its arrays are


class Errand:
    """One picture's.

    Args:
        pictures, scheduler: of the service.
        arena: shared with the worker.
        turn: of the request.
        deadline: likewise.
        room: where the arrays may lie, first byte and end.
    """

    def __init__(
        self,
        pictures: PictureThreads,
        scheduler: Scheduler,
        arena: Arena,
        turn: LocalTurn,
        deadline: Deadline,
        room: tuple[int, int],
    ):
        self._pictures = pictures
        self._scheduler = scheduler
        self._arena = arena
        self._turn = turn
        self._deadline = deadline
        self._room = room
        self._completions: CompletionQueue = scheduler.completions_here()
        self._end: Waiting[Stored | None] = Waiting(self._completions)
        self._lock = threading.Lock()  # guards all below
        self._picture: Waiting[None] | None = None  # on its way to be prepared
        self._request: Request | None = None
        self._given_up = False
        self._in_use = False  # the memory shared with the worker, by a picture thread
        self._let_go: Waiting[None] | None = None  # notified once it no longer is

    async def whole(self, question: Callable[[], Question]) -> Stored:
        """Of a picture in one piece.

        Cancelling the caller takes it off the queue. When this ends, nobody reads its picture or writes to
        its room any more.

        Args:
            question: prepares the picture; for a picture thread.

        Raises:
            Exception: as of `Turn.run`.
        """
        self._picture = self._pictures.post(
            "decode", self._deadline, self._submitted, partial(self._submit, question)
        )
        return await self._ended()

    async def known(self, question: Question) -> Stored:
        """Of a picture whose prediction is kept; cancelling and errors as of `whole`."""
        self._submit(lambda: question)
        return await self._ended()

    async def store(self, computed: Computed) -> Stored:
        """Of what is computed already; cancelling and errors as of `whole`."""
        self._post(computed)
        return await self._ended()

    async def _ended(self) -> Stored:
        try:
            stored = await self._end.answered()
        finally:
            await self._give_up()
        if stored is None:
            raise RuntimeError("what was given up has no result")
        return stored

    def abandon(self) -> None:
        """Takes it out of every line in which it stands: nobody wants its result."""
        with self._lock:
            self._given_up = True
            request, self._request = self._request, None
        if self._picture is not None:
            self._picture.drop()
        if request is not None:
            self._scheduler.withdraw(request)
        self._end.answer(None)

    async def _give_up(self) -> None:
        self.abandon()
        with self._lock:
            if self._in_use:
                self._let_go = Waiting(self._completions)
        if self._let_go is not None:
            await self._let_go.answered()

    # on a picture thread

    def _submit(self, question: Callable[[], Question]) -> None:
        if not self._use():
            return
        try:
            asked = question()
        finally:
            self._used()
        with self._lock:
            if not self._given_up:
                self._request = self._turn.submit(asked, self._computed)

    def _submitted(self, _: None, error: Exception | None) -> None:
        if error is not None:
            self._end.fail(error)

    def _store(self, computed: Computed) -> Stored | None:
        if not self._use():
            return None
        result = computed.result
        arrays = [result.labels, result.confidence, *(() if result.scores is None else (result.scores,))]
        try:
            return computed, self._arena.put(*self._room, arrays)
        finally:
            self._used()

    def _use(self) -> bool:
        """Begins to use the shared memory, unless all of it was given up."""
        with self._lock:
            self._in_use = not self._given_up
            return self._in_use

    def _used(self) -> None:
        with self._lock:
            self._in_use = False
            let_go = self._let_go
        if let_go is not None:
            let_go.answer(None)

    def _stored(self, stored: Stored | None, error: Exception | None) -> None:
        if error is not None:
            self._end.fail(error)
        else:
            self._end.answer(stored)

    # on a device's thread

    def _computed(self, result: EngineResult, error: Exception | None) -> None:
        if error is not None:
            self._end.fail(error)
            return
        computed = attempt(self._turn.computed, result)
        if isinstance(computed, Failed):
            self._end.fail(computed.take())
        else:
            self._post(computed)

    def _post(self, computed: Computed) -> None:
        self._pictures.post("encode", self._deadline, self._stored, partial(self._store, computed))
