"""A worker's door: the engine is another process, at the other end of a link."""

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tiling import TileLayout
from model.vocabulary.classes import LARGEST_BUILTIN, Vocabulary
from service.errors import NotFoundError
from service.hot_loading.canary import AnswerResult
from service.http.api_key import ApiKey
from service.http.auth import ApiKeys
from service.observability.stages import Stage, stage_listener
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult
from service.scheduling.host_memory import HostAccount
from service.schemas.segment import AUTO_VOCABULARY
from service.segmentation.door import Computed, KnownPicture, Question, Size
from service.vocabularies.stored_vocabulary import StoredVocabulary, builtin, decoded
from service.workers.arena import Arena, ArrayPlace, room_for
from service.workers.blocks import Blocks
from service.workers.counts import SharedCount
from service.workers.documents import info_of, vocabulary_text
from service.workers.kept import KeptKeys
from service.workers.link import Args, Link

_SMALL = 2**21  # pixels, decoded in some 20 ms
_LONG_S = 5.0  # that is left of a request's time, so that a device's work of a second is in time
_MOST_COSTS = 1024
_numbers = count(1)
Costs = dict[tuple[str, Size], int]  # by the weights' digest, and rows and columns


class RemoteDoor:
    """A `Door`.

    Args:
        arena: shared with the engine's process.
        count: where that process says whether there is a place.
        kept: where it says which predictions are kept.

    Attributes:
        link: to that process.
    """

    link: Link

    def __init__(self, arena: Arena, count: SharedCount, kept: KeptKeys):
        self._arena = arena
        self._count = count
        self._kept = kept
        self._costs: Costs = {}

    async def knock(self, model: str | None = None, version: str | None = None) -> None:
        """See `Door`; only who is likely to be refused asks why."""
        if model is None and self._count.open:
            return
        await self.link.call("knock", {"model": model, "version": version})

    @asynccontextmanager
    async def admit(self, memory: HostAccount) -> AsyncIterator["RemotePlace"]:
        """See `Door`; the place is taken with the first turn."""
        place = RemotePlace(memory)
        try:
            yield place
        finally:
            if place.asked:
                self.link.tell("leave", {"place": place.number, "answers": place.answers})

    @asynccontextmanager
    async def turn(
        self, place: "RemotePlace", model: str | None, version: int | None = None, *, stable: bool = False
    ) -> AsyncIterator["RemoteTurn"]:
        """See `Door`."""
        place.asked = True
        number = next(_numbers)
        asked = {"place": place.number, "turn": number, "model": model, "version": version}
        found, _ = await self.link.call("open", {**asked, "stable": stable})
        turn = RemoteTurn(self.link, self._arena, self._count, self._kept, self._costs, number, found)
        try:
            yield turn
        finally:
            place.answers += turn.close()

    async def vocabulary(self, name: str) -> StoredVocabulary:
        """See `Door`."""
        if name in (AUTO_VOCABULARY, *Vocabulary.builtin_names()):
            return builtin(LARGEST_BUILTIN if name == AUTO_VOCABULARY else name)
        _, raw = await self.link.call("vocabulary", {"name": name})
        found = _decoded(name, raw)
        if found is None:
            raise NotFoundError("this vocabulary is damaged in the store; PUT it again, or DELETE it")
        return found


_decoded = functools.lru_cache(64)(decoded)


class RemotePlace:
    """A `Place`.

    Args:
        memory: what the request reserves.

    Attributes:
        number: that both processes know it by.
        asked: whether the engine's process was asked for it.
        answers: of its turns, told when it is given back.
    """

    def __init__(self, memory: HostAccount):
        self.number = next(_numbers)
        self.asked = False
        self.answers: list[Args] = []
        self._memory = memory

    def hold(self, nbytes: int) -> None:
        """See `Place`."""
        self._memory.hold(nbytes)


class RemoteTurn:
    """A `Turn`.

    Attributes:
        passes_on: the picture lies in the arena.

    Args:
        link, arena: to the engine's process, and shared with it.
        count, kept: as of `RemoteDoor`.
        costs: that were asked for; pictures of a size come again and again.
        number: that both processes know it by.
        found: what the engine's process says of it.
    """

    passes_on = 3

    def __init__(
        self,
        link: Link,
        arena: Arena,
        count: SharedCount,
        kept: KeptKeys,
        costs: Costs,
        number: int,
        found: dict[str, Any],
    ):
        self.info = info_of(found["info"])
        self.on_trial: bool = found["on_trial"]
        self._link = link
        self._arena = arena
        self._count = count
        self._kept = kept
        self._costs = costs
        self._number = number
        self._deadline = Deadline(0.0)
        self._reserve: Args | None = None  # that goes along with the question
        self._blocks = Blocks(arena)
        self._computed = False
        self._result: tuple[AnswerResult, float | None] | None = None  # that goes along with the end

    def begin(self, vocabulary: Vocabulary, deadline: Deadline, owner: str) -> None:
        """See `Turn`."""
        self._deadline = deadline
        times = {"seconds": deadline.seconds, "at": deadline.at}
        traced = stage_listener.get() is not None
        self._tell("begin", vocabulary=vocabulary_text(vocabulary), owner=owner, traced=traced, **times)

    def known(self, key: bytes) -> KnownPicture | None:
        """See `Turn`; of a picture that seems to be new nobody is asked."""
        if not self._kept.likely(key):
            return None
        found = self._link.call_from_thread("known", {"turn": self._number, "key": key.hex()})
        if found is None:
            return None
        size, remarks = found
        return KnownPicture(size=(size[0], size[1]), remarks=tuple(remarks))

    def cost(self, size: Size) -> int:
        """See `Turn`."""
        known = self._costs.get((self.info.digest, size))
        if known is None:
            known = int(self._link.call_from_thread("cost", {"turn": self._number, "size": size}))
            if len(self._costs) >= _MOST_COSTS:
                self._costs.clear()
            self._costs[self.info.digest, size] = known
        return known

    def reserve(self, size: Size, pieces: int, classified: int) -> None:
        """See `Turn`; while devices have little to do, what is cheap to decode in vain goes on meanwhile."""
        asked: Args = {"size": size, "pieces": pieces, "classified": classified}
        if (
            self._count.calm
            and max(1, pieces) * size[0] * size[1] <= _SMALL
            and self._deadline.left() >= _LONG_S
        ):
            self._reserve = asked
        else:
            self._link.call_from_thread("reserve", {"turn": self._number, **asked})

    def prepare(self, picture: NDArray[np.uint8], layout: TileLayout | None) -> Any:
        """Where the picture lies in the arena; the engine's process brings it to its size."""
        start = self._blocks.take(picture.nbytes)
        try:
            (place,) = self._arena.put(start, start + picture.nbytes, [picture])
        finally:
            self._blocks.filled(start)
        return place

    async def run(self, question: Question) -> Computed:
        """See `Turn`."""
        rows, columns = question.output_size
        room = room_for(rows * columns, len(question.vocabulary) if question.scores else 0)
        start = self._blocks.take(room)
        used = [start]
        if question.prepared is not None:
            # A cancelled request's picture may still be read, and its prediction kept: no other one may take
            # its place before that is over.
            picture: ArrayPlace = question.prepared
            self._blocks.lend(picture[0])
            used.append(picture[0])
        reply, _ = await self._link.call(
            "run",
            {
                "turn": self._number,
                "reserve": self._reserve,
                "picture": question.prepared,
                "tiling": None if question.layout is None else asdict(question.layout.tiling),
                "output_size": question.output_size,
                "threshold": question.threshold,
                "balance": None if question.balance is None else asdict(question.balance),
                "scores": question.scores,
                "key": None if question.key is None else question.key.hex(),
                "picture_size": question.picture_size,
                "remarks": question.remarks,
                "room": [start, start + room],
            },
            settled=functools.partial(self._blocks.filled, *used),
        )
        self._computed = True
        _listened(reply["stages"])
        labels, confidence, *scores = (self._arena.array(place) for place in reply["arrays"])
        return Computed(
            result=EngineResult(
                labels=labels,
                confidence=confidence,
                scores=scores[0] if scores else None,
                **reply["result"],
            ),
            **reply["computed"],
        )

    def give_up(self) -> None:
        """See `Turn`."""
        if not self._computed:
            self._tell("give_up")

    async def was_late(self) -> bool:
        """See `Turn`."""
        late, _ = await self._link.call("late", {"turn": self._number})
        return bool(late)

    def count_answer(self, result: AnswerResult, seconds: float | None = None) -> None:
        """See `Turn`; a trial is told at once."""
        if self.on_trial:
            self._tell("count_answer", result=result, seconds=seconds)
        elif self._result is None:
            self._result = result, seconds

    def release(self) -> None:
        """See `Turn`."""
        self._tell("release")

    def close(self) -> list[Args]:
        """Ends it, with its place; what became of the answer."""
        self._blocks.close()
        if self._result is None:
            return []
        result, seconds = self._result
        return [{"turn": self._number, "result": result, "seconds": seconds}]

    def _tell(self, method: str, **values: Any) -> None:
        self._link.tell(method, {"turn": self._number, **values})


class RemoteKeys(ApiKeys):
    """The keys, whose use is counted by the engine's process for all workers together.

    Args:
        api, admin: as of `ApiKeys`.

    Attributes:
        link: to that process.
    """

    link: Link

    @asynccontextmanager
    async def using(self, key: ApiKey | None) -> AsyncIterator[None]:
        """See `ApiKeys`."""
        if key is None or not key.limited:
            yield
            return
        number = next(_numbers)
        try:
            await self.link.call("use_key", {"key": key.name, "number": number})
            yield
        finally:
            self.link.tell("end_key", {"number": number})


def _listened(stages: Sequence[Sequence[Any]]) -> None:
    """Tells whoever traces the request of the stages that happened in the other process."""
    listener = stage_listener.get()
    if listener is not None:
        for name, began, ended in stages:
            listener(Stage(name, began, ended))
