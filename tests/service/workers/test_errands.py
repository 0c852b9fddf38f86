"""A request's way between a worker and the engine's process; here both ends are in one."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.vocabulary.classes import Vocabulary
from service.errors import QueueFullError
from service.http.auth import ApiKeys
from service.runtime import Service
from service.scheduling.admission import CALM_S, Admission
from service.scheduling.deadline import Deadline
from service.segmentation.door import Computed, Question
from service.workers.arena import Arena, new_arena
from service.workers.counts import SharedCount, new_count
from service.workers.desk import Desk
from service.workers.kept import KeptKeys, new_kept
from service.workers.link import Link
from service.workers.remote_door import RemoteDoor
from tests.service.fakes import FakeEngine, picture, running
from tests.service.workers.test_relay import value
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio
KEY = bytes(range(64))
CLASSES = Vocabulary.of(["sky", "tree"])


class Both:
    """A worker's door, and the desk at its other end."""

    def __init__(self, service: Service, patch: pytest.MonkeyPatch):
        file, self.count = new_arena(1 << 24), SharedCount(new_count(1), 0, 1 << 30)
        kept = KeptKeys(new_kept())
        self.service = service
        self.arena = Arena(file)
        self.engines_arena = Arena(file)
        self.door = RemoteDoor(self.arena, self.count, kept)
        self.lost = asyncio.Event()
        self.heard: list[str] = []
        self.late = False  # whether cancellations do not arrive yet
        self.desk = Desk(
            service,
            lambda *_: asyncio.sleep(0),
            ApiKeys.of(service.settings),
            self.engines_arena,
            self.count,
            "1",
            self.lost.set,
        )
        self.count.calm = True
        service.predictions.on_kept = kept.note
        take = self.desk.link._take

        def hear(document: dict[str, Any], blob: bytes) -> None:
            self.heard.append(document.get("call") or document.get("tell") or "cancel")
            if not (self.late and "cancel" in document):
                take(document, blob)

        patch.setattr(self.desk.link, "_take", hear)

    async def ask(
        self, shown: NDArray[np.uint8], *, key: bytes | None = None, seconds: float = WAIT
    ) -> Computed:
        """What a request does, as far as it needs the engine; its label map is a copy."""
        size, memory = (shown.shape[0], shown.shape[1]), self.service.memory.open()
        deadline = Deadline(seconds)
        async with self.door.admit(memory) as place, self.door.turn(place, None) as turn:
            turn.begin(CLASSES, deadline, "")
            known = None if key is None else await asyncio.to_thread(turn.known, key)
            await asyncio.to_thread(turn.reserve, size, int(known is None), size[0] * size[1] * 2)
            prepared = None if known else await asyncio.to_thread(turn.prepare, shown, None)
            question = Question(
                prepared=prepared,
                layout=None,
                vocabulary=CLASSES,
                output_size=size,
                threshold=0.0,
                balance=None,
                scores=False,
                deadline=deadline,
                key=key,
                picture_size=size,
                remarks=(),
            )
            try:
                computed = await turn.run(question)
            finally:
                turn.give_up()
            turn.count_answer("good")
            return computed


@asynccontextmanager
async def connected(engine: FakeEngine, patch: pytest.MonkeyPatch, **values: Any) -> AsyncIterator[Both]:
    """Both ends around an engine; afterwards nothing of any request is left."""
    async with running(engine, **values) as (_, service):
        both, (here, there) = Both(service, patch), socket.socketpair()
        near = both.door.link = Link({}, {})
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: near, sock=here)
        await loop.create_connection(lambda: both.desk.link, sock=there)
        yield both
        await until(lambda: service.admission.pending == 0 and not both.arena._blocks)
        near.close()
        await both.lost.wait()


async def test_a_request_is_four_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them have an answer. A full queue, and a picture that is known, make one more each."""
    engine, shown = FakeEngine(), picture()
    async with connected(engine, monkeypatch, prediction_cache_bytes=1 << 20) as both:
        first = await both.ask(shown, key=KEY)
        await until(lambda: len(both.heard) == 4)
        assert both.heard == ["open", "begin", "run", "leave"]
        assert first.prediction == "miss"
        both.heard.clear()
        with both.service.admission.admit() as other:
            other.reserve(1.1 * CALM_S, Deadline(WAIT))
            again = await both.ask(shown, key=KEY)
        await until(lambda: len(both.heard) == 6)
        assert both.heard == ["open", "begin", "known", "reserve", "run", "leave"]
        assert again.prediction == "hit"
        assert engine.batches == [1]
        both.heard.clear()
        await both.ask(shown, seconds=4.0)  # too little time to be sure of it
        await until(lambda: len(both.heard) == 5)
        assert both.heard == ["open", "begin", "reserve", "run", "leave"]


async def test_what_a_worker_does_not_know_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key took its place: the picture is decoded, and not predicted."""
    engine = FakeEngine()
    async with connected(engine, monkeypatch, prediction_cache_bytes=1 << 20) as both:
        both.service.predictions.on_kept = lambda key: None
        assert (await both.ask(picture(), key=KEY)).prediction == "miss"
        assert (await both.ask(picture(), key=KEY)).prediction == "hit"
        assert "known" not in both.heard
        assert engine.batches == [1]


async def test_who_is_refused_after_all_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(Admission, "calm", True)  # as it was a moment ago
    async with connected(engine, monkeypatch, max_pending_pixels=100) as both:
        with both.service.admission.admit() as other:
            other.reserve(0.0, Deadline(WAIT), pixels=100)
            with pytest.raises(QueueFullError):
                await both.ask(picture())
        assert both.heard[:3] == ["open", "begin", "run"]
        assert not engine.batches


async def test_a_queue_is_calm_while_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(FakeEngine(), monkeypatch, max_pending_pixels=100) as both:
        admission = both.service.admission
        for seconds, pixels, calm in ((CALM_S, 50, True), (1.1 * CALM_S, 50, False), (0.0, 51, False)):
            with admission.admit() as ticket:
                ticket.reserve(seconds, Deadline(WAIT), pixels=pixels)
                assert admission.calm == calm, (seconds, pixels)


async def test_who_leaves_is_taken_out_of_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(gate=threading.Event())
    async with connected(engine, monkeypatch) as both:
        first = asyncio.create_task(both.ask(picture()))
        await asyncio.to_thread(engine.running.wait, WAIT)
        second = asyncio.create_task(both.ask(picture(6, 9)))
        await until(lambda: both.service.scheduler.depth == 1)
        second.cancel()
        await until(lambda: both.service.scheduler.depth == 0)
        first.cancel()
        await asyncio.wait({first, second})
        assert engine.gate is not None
        engine.gate.set()
    assert engine.batches == [1]
    assert not engine.jobs


async def test_who_leaves_is_taken_out_of_the_pictures_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a backlog: nobody copies or prepares a picture that nobody waits for."""
    engine, go_on = FakeEngine(), threading.Event()
    async with connected(engine, monkeypatch, decode_threads=1) as both:
        pictures = both.service.pictures
        prepared: list[Any] = []
        monkeypatch.setattr(both.engines_arena, "array", prepared.append)
        backlog = asyncio.create_task(pictures.run(go_on.wait, WAIT))
        await until(lambda: pictures._busy == 1)
        asked = asyncio.create_task(both.ask(picture()))
        await until(lambda: pictures.depth("decode") == 1)
        asked.cancel()
        await until(lambda: "leave" in both.heard)
        assert pictures.depth("decode") == 0
        await until(lambda: both.service.admission.pending == 0)
        go_on.set()
        assert await backlog
        await pictures.run(int)  # what stood in the line before is done
    assert not prepared
    assert not engine.batches


async def test_a_large_picture_is_reserved_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose prediction is kept, too: it costs no device time, but memory."""
    async with connected(FakeEngine(), monkeypatch, prediction_cache_bytes=1 << 20) as both:
        await both.ask(picture(), key=KEY)
        await until(lambda: len(both.heard) == 4)
        both.heard.clear()
        monkeypatch.setattr("service.workers.remote_door._SMALL", picture()[:, :, 0].size - 1)
        assert (await both.ask(picture(), key=KEY)).prediction == "hit"
        await until(lambda: "leave" in both.heard)
        assert both.heard == ["open", "begin", "known", "reserve", "run", "leave"]


async def test_one_place_that_cannot_be_given_back_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(FakeEngine()) as (_, service):
        both = Both(service, monkeypatch)
        for number in (1, 2):
            asked = {"place": number, "turn": number, "model": None, "version": None}
            both.desk._open({**asked, "stable": False})
        assert service.admission.pending == 2

        def broken() -> None:
            raise RuntimeError("broken")

        both.desk._places[2].stack.callback(broken)
        both.desk.link.connection_lost(None)
        await both.lost.wait()
        assert service.admission.pending == 0
        assert both.desk._ending is not None
        with pytest.raises(RuntimeError, match="broken"):
            await both.desk._ending


async def test_memory_is_kept_until_nobody_writes_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()
    async with connected(FakeEngine(), monkeypatch) as both:
        put = both.engines_arena.put

        def slowly(*args: Any) -> Any:
            writing.set()
            assert go_on.wait(WAIT)
            return put(*args)

        monkeypatch.setattr(both.engines_arena, "put", slowly)
        asked = asyncio.create_task(both.ask(picture()))
        await asyncio.to_thread(writing.wait, WAIT)
        asked.cancel()
        await asyncio.wait({asked})
        await until(lambda: "leave" in both.heard)
        assert len(both.arena._blocks) == 2  # of the picture, and of its label map
        go_on.set()


async def test_a_picture_stays_until_nobody_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or another one's prediction would be kept under its key, should its request be cancelled."""
    engine, reading, go_on = FakeEngine(), threading.Event(), threading.Event()
    async with connected(engine, monkeypatch, prediction_cache_bytes=1 << 20) as both:
        array = both.engines_arena.array

        def slowly(place: Any) -> Any:
            reading.set()
            assert go_on.wait(WAIT)
            return array(place)

        monkeypatch.setattr(both.engines_arena, "array", slowly)
        asked = asyncio.create_task(both.ask(picture(), key=KEY))
        await asyncio.to_thread(reading.wait, WAIT)
        both.late = True
        asked.cancel()
        await asyncio.wait({asked})
        await until(lambda: "leave" in both.heard)
        assert len(both.arena._blocks) == 2  # of the picture, and of its label map
        go_on.set()
    assert not engine.batches


async def test_who_takes_a_workers_place_has_gauges_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may tell of its connections before what its predecessor told is forgotten."""
    async with running(FakeEngine()) as (_, service):
        first, second = Both(service, monkeypatch), Both(service, monkeypatch)
        for both, connections in ((first, 4), (second, 3)):
            both.desk._events({"events": [["part", "connections", connections]]}, b"")
        first.desk.link.connection_lost(None)
        await first.lost.wait()
        assert value(service.metrics, "connections") == 3


async def test_errors_of_devices_and_threads_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = picture()
    shown[0, 0] = 0
    async with connected(FakeEngine(error=QueueFullError(7)), monkeypatch) as both:
        with pytest.raises(QueueFullError) as refused:
            await both.ask(shown)
        assert refused.value.retry_after == 7
        both.service.pictures.stop()
        with pytest.raises(Exception, match="shutting down"):
            await both.ask(picture())


def test_a_key_takes_the_place_of_another_one() -> None:
    file = new_kept()
    here, there = KeptKeys(file), KeptKeys(file)
    key, same_place, other = (bytes(56) + number.to_bytes(8, "big") for number in (5, 5 + (1 << 16), 6))
    here.note(key)
    assert [there.likely(one) for one in (key, same_place, other)] == [True, False, False]
    there.note(same_place)
    assert [here.likely(one) for one in (key, same_place, other)] == [False, True, False]
    assert not here.likely(bytes(64))
