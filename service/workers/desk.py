"""The engine's end of one worker's link: what the worker asks is done at the local door."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import ASGIApp

from model.tiling import TileLayout, Tiling
from model.vocabulary.classes import Vocabulary
from service.http.auth import ApiKeys
from service.observability.stages import Stage, stage_listener
from service.runtime import Service
from service.scheduling.admission import Ticket
from service.scheduling.deadline import Deadline
from service.segmentation.door import Question
from service.segmentation.local_door import LocalDoor, LocalTurn
from service.workers import relay
from service.workers.arena import Arena
from service.workers.counts import SharedCount
from service.workers.documents import balance_of, info_text, vocabulary_of
from service.workers.errand import Errand
from service.workers.link import Args, Link, Reply
from service.workers.tunnel import serve_tunnelled

_births = count(1)


class _Place:
    """A request's place, and its turns."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.ticket: Ticket | None = None
        self.turns: dict[int, _Turn] = {}


class _Turn:
    """A turn, and what goes with it in this process."""

    def __init__(self, turn: LocalTurn):
        self.turn = turn
        self.vocabulary: Vocabulary | None = None
        self.deadline = Deadline(0.0)
        self.looked_up = False  # whether a prediction is kept
        self.errand: Errand | None = None
        self.stages: list[Stage] = []
        self.traced = False

    def listen(self) -> None:
        stage_listener.set(self.stages.append if self.traced else None)


class Desk:
    """For the event loop's thread.

    Args:
        service: with the engine.
        app: the whole application, for requests that a worker does not answer itself.
        keys: whose use is counted here.
        arena: shared with the worker.
        count: of the host's memory.
        name: of the worker, for metrics.
        on_lost: notified once the worker has ended, and all that it held was given back.
    """

    def __init__(
        self,
        service: Service,
        app: ASGIApp,
        keys: ApiKeys,
        arena: Arena,
        count: SharedCount,
        name: str,
        on_lost: Callable[[], None],
    ):
        self._service = service
        self._door = LocalDoor(service)
        self._keys = keys
        self._arena = arena
        self._count = count
        self._name = f"{name}.{next(_births)}"  # who takes a worker's place is told apart from it
        self._on_lost = on_lost
        self._places: dict[int, _Place] = {}
        self._turns: dict[int, _Turn] = {}
        self._used: dict[int, ExitStack] = {}
        self._pid = 0
        self._ending: asyncio.Task[None] | None = None
        self.link = Link(
            {
                "knock": self._knock,
                "run": self._run,
                "late": self._late,
                "vocabulary": self._vocabulary,
                "use_key": self._use_key,
                "asgi": partial(serve_tunnelled, self, app),
            },
            {
                "begin": self._begin,
                "give_up": lambda args, blob: self._turn(args).turn.give_up(),
                "count_answer": lambda args, blob: self._count_answer(args),
                "release": lambda args, blob: self._turn(args).turn.release(),
                "leave": self._leave,
                "end_key": self._end_key,
                "events": self._events,
                "born": self._born,
            },
            self._lost,
            {"open": self._open, "known": self._known, "cost": self._cost, "reserve": self._reserve},
        )

    def _turn(self, args: Args) -> _Turn:
        return self._turns[args["turn"]]

    async def _knock(self, args: Args, blob: bytes) -> Reply:
        await self._door.knock(args["model"], args["version"])
        return None, b""

    def _open(self, args: Args) -> Any:
        place = self._places.setdefault(args["place"], _Place())
        if place.ticket is None:
            place.ticket = place.stack.enter_context(self._door.admitted(None))
            self._tell_all()
        turn = self._door.leased(place.ticket, args["model"], args["version"], stable=args["stable"])
        place.stack.enter_context(turn)
        place.turns[args["turn"]] = self._turns[args["turn"]] = _Turn(turn)
        return {"info": info_text(turn.info), "on_trial": turn.on_trial}

    def _begin(self, args: Args, blob: bytes) -> None:
        own = self._turn(args)
        own.traced = args["traced"]
        own.listen()
        own.deadline = Deadline(args["seconds"], since=args["at"] - args["seconds"])
        own.vocabulary = vocabulary_of(args["vocabulary"])
        own.turn.begin(own.vocabulary, own.deadline, args["owner"])

    def _known(self, args: Args) -> Any:
        own = self._turn(args)
        own.looked_up = True
        found = own.turn.known(bytes.fromhex(args["key"]))
        return None if found is None else (found.size, found.remarks)

    def _reserve(self, args: Args) -> None:
        rows, columns = args["size"]
        self._turn(args).turn.reserve((rows, columns), args["pieces"], args["classified"])

    def _cost(self, args: Args) -> int:
        rows, columns = args["size"]
        return self._turn(args).turn.cost((rows, columns))

    async def _run(self, args: Args, blob: bytes) -> Reply:
        own = self._turn(args)
        own.listen()
        service, (start, end) = self._service, args["room"]
        if args["reserve"] is not None:
            self._reserve({**args["reserve"], "turn": args["turn"]})
        errand = own.errand = Errand(
            service.pictures, service.scheduler, self._arena, own.turn, own.deadline, (start, end)
        )
        if args["picture"] is None or self._kept(own, args["key"]):
            computed, places = await errand.known(_question(args, None, own))
        elif args["tiling"] is None:
            computed, places = await errand.whole(lambda: self._prepared(args, own))
        else:
            question = await service.pictures.run_in("decode", own.deadline, self._prepared, args, own)
            computed, places = await errand.store(await own.turn.run(question))
        result = computed.result
        rest = {"trained": result.trained, "own": result.own}
        times = {"seconds": result.seconds, "devices": result.devices}
        sources = {"text": computed.text, "prediction": computed.prediction}
        return {
            "arrays": places,
            "result": rest | times,
            "computed": sources | {"text_seconds": computed.text_seconds},
            "stages": [(one.name, one.began_ns, one.ended_ns) for one in own.stages],
        }, b""

    def _kept(self, own: _Turn, key: str | None) -> bool:
        """Whether there is a prediction, which the worker did not ask for since it seemed in vain."""
        if key is None or own.looked_up:
            return False
        return own.turn.known(bytes.fromhex(key)) is not None

    def _prepared(self, args: Args, own: _Turn) -> Question:
        # A copy: what others share of this picture's prediction must not change when the worker takes back
        # its memory.
        picture: NDArray[np.uint8] = self._arena.array(args["picture"]).copy()
        return _question(args, own.turn.prepare(picture, _layout(args)), own)

    async def _late(self, args: Args, blob: bytes) -> Reply:
        return await self._turn(args).turn.was_late(), b""

    async def _vocabulary(self, args: Args, blob: bytes) -> Reply:
        return None, await self._service.vocabularies.stored(args["name"])

    async def _use_key(self, args: Args, blob: bytes) -> Reply:
        stack = ExitStack()
        stack.enter_context(self._keys.named(args["key"]).used())
        self._used[args["number"]] = stack
        return None, b""

    def _end_key(self, args: Args, blob: bytes) -> None:
        if (stack := self._used.pop(args["number"], None)) is not None:
            stack.close()

    def _count_answer(self, args: Args) -> None:
        self._turn(args).turn.count_answer(args["result"], args["seconds"])

    def _leave(self, args: Args, blob: bytes) -> None:
        place = self._places.pop(args["place"])
        try:
            for answer in args["answers"]:
                self._count_answer(answer)
        finally:
            self._end(place)

    def _events(self, args: Args, blob: bytes) -> None:
        relay.apply(self._service.metrics, args["events"], self._name)

    def _born(self, args: Args, blob: bytes) -> None:
        self._pid = args["pid"]
        self._service.metrics.processes.others.add(self._pid)

    def _end(self, place: _Place) -> None:
        """Gives back all that a request has."""
        for number, own in place.turns.items():
            self._turns.pop(number, None)
            own.deadline.abandoned = True
            if own.errand is not None:
                own.errand.abandon()
            own.turn.give_up()
        place.stack.close()
        self._tell_all()

    def _tell_all(self) -> None:
        admission = self._service.admission
        self._count.retry_after = admission.retry_after()
        self._count.calm = admission.calm
        self._count.open = self._service.state == "ready" and admission.pending < admission.max_requests

    def _lost(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._clear())

    async def _clear(self) -> None:
        await self.link.ended()
        with ExitStack() as all_of_it:  # should one of these fail, the others are done
            all_of_it.callback(self._on_lost)
            all_of_it.callback(self._service.metrics.processes.others.discard, self._pid)
            all_of_it.callback(self._service.metrics.drop_parts, self._name)
            for stack in self._used.values():
                all_of_it.callback(stack.close)
            for place in self._places.values():
                all_of_it.callback(self._end, place)
            self._places, self._used = {}, {}


def _question(args: Args, prepared: Any, own: _Turn) -> Question:
    assert own.vocabulary is not None
    rows, columns = args["output_size"]
    height, width = args["picture_size"]
    return Question(
        prepared=prepared,
        layout=_layout(args),
        vocabulary=own.vocabulary,
        output_size=(rows, columns),
        threshold=args["threshold"],
        balance=balance_of(args["balance"]),
        scores=args["scores"],
        deadline=own.deadline,
        key=None if args["key"] is None else bytes.fromhex(args["key"]),
        picture_size=(height, width),
        remarks=tuple(args["remarks"]),
    )


def _layout(args: Args) -> TileLayout | None:
    """How a picture is cut, of a question."""
    if args["tiling"] is None:
        return None
    return TileLayout(tuple(args["picture_size"]), tuple(args["output_size"]), Tiling(**args["tiling"]))
