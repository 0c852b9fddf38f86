"""A request's text embeddings, got while its picture is decoded and predicted."""

import asyncio
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from model.vocabulary.classes import Vocabulary
from service.caches.text_cache import Finished, Text
from service.errors import ClientGoneError, DeadlineExceededError, NotReadyError, RetryableError
from service.observability.stages import stage
from service.runtime import Service
from service.scheduling.admission import Ticket
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, EngineClosedError
from service.scheduling.price import Work
from service.scheduling.work import Request

MANY_NAMES = 64  # of more of them tokens are counted on a picture thread
_OTHERS = (RetryableError, DeadlineExceededError, ClientGoneError, EngineClosedError)


class RequestText:
    """Begins to get the embeddings; they are there at once if the process knows the whole vocabulary.

    Args:
        service: whose caches and devices.
        vocabulary: K classes.
        engines: of the request's version.
        ticket: of the request; new names are reserved on it.
        deadline: of the request.
        owner: whose cached embeddings it may have; empty for everybody's.
    """

    def __init__(
        self,
        service: Service,
        vocabulary: Vocabulary,
        engines: tuple[Engine, ...],
        ticket: Ticket,
        deadline: Deadline,
        owner: str = "",
    ):
        self._owner = owner
        self._service = service
        self._vocabulary = vocabulary
        self._engines = engines
        self._ticket = ticket
        self._deadline = deadline
        self._own_error: Exception | None = None
        self._text = service.texts.known(vocabulary, engines[0].text_digest, owner)
        if self._text is not None:
            with stage("text"):  # recorded, short as it was
                pass
        self._task = None if self._text is not None else asyncio.create_task(self._get())

    @property
    def tensor(self) -> Tensor | None:
        """float32 [K, C], if it is there already."""
        return None if self._text is None else self._text.tensor

    def hand_over(self, request: Request) -> None:
        """Sees that a request that was submitted without them gets them, or the error that came instead.

        For any thread.
        """
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(
                self._task.add_done_callback, partial(self._got, request)
            )

    def result(self) -> Text:
        """What was got, after the request has its result."""
        if self._text is None:
            raise RuntimeError("the text is still on its way")
        return self._text

    def give_up(self) -> None:
        """Wants them no more."""
        if self._task is None:
            return
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled():
            self._task.exception()  # looked at, should nobody await it

    async def _get(self) -> Text:
        while True:
            try:
                with stage("text"):
                    self._text = await self._service.texts.get(
                        self._vocabulary, self._engines[0].text_digest, self._embed, self._owner
                    )
                return self._text
            except _OTHERS as error:
                if error is self._own_error:
                    raise
                # of another request that wanted the same names first: what it was refused says nothing of us

    def _got(self, request: Request, task: asyncio.Task[Text]) -> None:
        scheduler = self._service.scheduler
        if task.cancelled():
            scheduler.fail(request, NotReadyError("the service is shutting down"))
        elif (error := task.exception()) is not None:
            scheduler.fail(request, error)
        else:
            scheduler.give_text(request, task.result().tensor)

    async def _embed(self, names: Sequence[str], templates: Sequence[str], finished: Finished) -> Tensor:
        service, engines = self._service, self._engines
        try:
            if len(names) > MANY_NAMES:
                tokens = await service.in_pool(engines[0].tokens, names, templates)
            else:
                tokens = engines[0].tokens(names, templates)
            work = Work(tokens=sum(tokens))
            self._ticket.reserve(
                service.prices.seconds([engine.info for engine in engines], work), self._deadline
            )
            return await service.scheduler.embed(engines, names, templates, tokens, self._deadline, finished)
        except Exception as error:
            self._own_error = error
            raise
