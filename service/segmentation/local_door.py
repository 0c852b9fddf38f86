"""The door of the process that has the engine: admission, leases, caches and devices are its own."""

import re
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.caches.prediction_cache import CachedPrediction
from service.errors import NotFoundError, UnhealthyError
from service.hot_loading.canary import AnswerResult
from service.hot_loading.loaded import Lease
from service.runtime import Service
from service.scheduling.admission import Ticket
from service.scheduling.deadline import Deadline
from service.scheduling.delivery import Then
from service.scheduling.engine import EngineResult, Job, PreparedPicture
from service.scheduling.host_memory import HostAccount
from service.scheduling.price import Work
from service.scheduling.work import Request
from service.segmentation.door import Computed, KnownPicture, Question, Size
from service.segmentation.request_text import RequestText
from service.segmentation.tiled import PreparedTiles, prepare_tiles, segment_tiles
from service.vocabularies.stored_vocabulary import StoredVocabulary

T = TypeVar("T")
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class LocalDoor:
    """A `Door`.

    Args:
        service: whose it is.
    """

    def __init__(self, service: Service):
        self._service = service

    async def knock(self, model: str | None = None, version: str | None = None) -> None:
        """See `Door`."""
        self._service.refuse_unless_ready()
        if model is not None:
            live_versions(self._service, model, version)
        self._service.admission.refuse_if_full()

    def admit(self, memory: HostAccount) -> "AtOnce[Ticket]":
        """See `Door`."""
        return AtOnce(self.admitted(memory))

    def admitted(self, memory: HostAccount | None) -> AbstractContextManager[Ticket]:
        """`admit`, which waits for nothing; without memory nobody counts that here."""
        return self._service.admission.admit(memory)

    def turn(
        self, place: Ticket, model: str | None, version: int | None = None, *, stable: bool = False
    ) -> "AtOnce[LocalTurn]":
        """See `Door`."""
        return AtOnce(self.leased(place, model, version, stable=stable))

    def leased(
        self, place: Ticket, model: str | None, version: int | None = None, *, stable: bool = False
    ) -> "LocalTurn":
        """`turn`, which waits for nothing."""
        place.computed()
        lease = self._service.models.lease(model, version, stable=stable)
        return LocalTurn(self._service, place, lease)

    async def vocabulary(self, name: str) -> StoredVocabulary:
        """See `Door`."""
        return await self._service.vocabularies.get(name)


class AtOnce(Generic[T]):
    """An asynchronous context around one that waits for nothing.

    Args:
        context: the other one.
    """

    __slots__ = ("_context",)

    def __init__(self, context: AbstractContextManager[T]):
        self._context = context

    async def __aenter__(self) -> T:
        return self._context.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)


class LocalTurn:
    """A `Turn`, and the context of its version's lease.

    Attributes:
        passes_on: nothing, for the engine is here.

    Args:
        service: whose caches and devices.
        ticket: of the request.
        lease: of the version.
    """

    passes_on = 0

    def __init__(self, service: Service, ticket: Ticket, lease: Lease):
        self.info = lease.info
        self.on_trial = lease.on_trial
        self._service = service
        self._ticket = ticket
        self._lease = lease
        self._engines = lease.engines
        self._known: CachedPrediction | None = None
        self._texts: RequestText | None = None
        self._deadline = Deadline(0.0)
        self._submitted: list[Request] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.release()

    def begin(self, vocabulary: Vocabulary, deadline: Deadline, owner: str) -> None:
        """See `Turn`."""
        self._deadline = deadline
        self._texts = RequestText(self._service, vocabulary, self._engines, self._ticket, deadline, owner)

    def known(self, key: bytes) -> KnownPicture | None:
        """See `Turn`."""
        self._known = self._service.predictions.get(key)
        if self._known is None:
            return None
        return KnownPicture(size=self._known.size, remarks=self._service.predictions.remarks_on(key))

    def cost(self, size: Size) -> int:
        """See `Turn`."""
        return self._engines[0].cost(size)

    def reserve(self, size: Size, pieces: int, classified: int) -> None:
        """See `Turn`."""
        pixels = pieces * self.cost(size) if pieces else 0
        work = Work(pixels=pixels, classified=classified)
        seconds = self._service.prices.seconds([engine.info for engine in self._engines], work)
        self._ticket.reserve(seconds, self._deadline, pixels=pixels)

    def prepare(
        self, picture: NDArray[np.uint8], layout: TileLayout | None
    ) -> PreparedPicture | PreparedTiles:
        """See `Turn`."""
        if layout is not None:
            return prepare_tiles(self._engines[0], picture, layout)
        return self._engines[0].prepare(picture)

    async def run(self, question: Question) -> Computed:
        """See `Turn`."""
        tiles = question.prepared
        if isinstance(tiles, PreparedTiles):
            job = self._job(question, None)
            result = await segment_tiles(self._service, job, tiles, self.texts, self._submitted)
        else:
            result = await self._service.scheduler.answer(self.submit(question))
        return self.computed(result)

    def submit(self, question: Question, then: Then | None = None) -> Request:
        """Asks the devices for a picture in one piece; arguments and errors as of `Scheduler.submit`."""
        scheduler = self._service.scheduler
        running = scheduler.request(self._job(question, question.prepared), then)
        self._submitted.append(running)  # before a device can be done with it
        scheduler.put(running)
        if running.job.text is None:
            self.texts.hand_over(running)
        return running

    def computed(self, result: EngineResult) -> Computed:
        """What devices made, who have done their part; any thread."""
        self._ticket.computed()
        text = self.texts.result()
        missed = "joined" if self._submitted[-1].shared else "miss"
        return Computed(
            result=result,
            text=text.source,
            text_seconds=text.seconds,
            prediction=missed if self._known is None else "hit",
        )

    @property
    def texts(self) -> RequestText:
        """What `begin` began to get."""
        if self._texts is None:
            raise RuntimeError("begin comes first")
        return self._texts

    def _job(self, question: Question, prepared: PreparedPicture | None) -> Job:
        known, key = self._known, question.key
        if key is not None and question.remarks:
            self._service.predictions.remark(key, question.remarks)
        return Job(
            engines=self._engines,
            prepared=prepared,
            prediction=None if known is None else known.prediction,
            vocabulary=question.vocabulary,
            text=self.texts.tensor,
            output_size=question.output_size,
            threshold=question.threshold,
            balance=question.balance,
            scores=question.scores,
            deadline=question.deadline,
            key=key,
            picture_size=question.picture_size,
        )

    def give_up(self) -> None:
        """See `Turn`."""
        if self._texts is not None:
            self._texts.give_up()

    async def was_late(self) -> bool:
        """See `Turn`."""
        refused = not self._submitted and self._deadline.left() > 0  # by its price, at the door
        return refused or any(request.queue_s for request in self._submitted)

    def count_answer(self, result: AnswerResult, seconds: float | None = None) -> None:
        """See `Turn`."""
        self._lease.count_answer(result, seconds)

    def release(self) -> None:
        """See `Turn`."""
        self._engines = ()
        self._lease.release()


def live_versions(service: Service, model: str, version: str | None) -> list[str]:
    """Versions of a model that requests can get, the current one first.

    Raises:
        UnhealthyError: no model is loaded yet.
        NotFoundError: there is no such model, or the version is none of them.
    """
    if not service.started:
        raise UnhealthyError(service.reason)
    loaded = service.models.status(model).versions
    versions = [str(one.version) for one in loaded if one.role != "draining"]
    if version is not None and (not _VERSION.fullmatch(version) or version not in versions):
        raise NotFoundError(f"this version of {model} is not loaded; loaded: {', '.join(versions)}")
    return versions
