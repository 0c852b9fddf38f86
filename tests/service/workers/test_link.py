"""Calls between two processes; here both ends are in one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from model.errors import VocabularyError
from service.caller import NO_KEY, Caller, address_var, caller_var, client
from service.errors import (
    FieldProblem,
    HostMemoryError,
    InvalidRequestError,
    KeyLimitedError,
    NotFoundError,
    QueueFullError,
    ServiceError,
)
from service.http.problems import problem_response
from service.observability.logging import request_id_var
from service.workers.arena import Arena, new_arena
from service.workers.counts import SharedCount, new_count
from service.workers.errors import OtherProcessError, from_document, to_document
from service.workers.kept import KeptKeys, new_kept
from service.workers.link import Args, Link, LinkLostError, Reply
from service.workers.remote_door import RemoteDoor

pytestmark = pytest.mark.anyio


class Far:
    """The far end: what it was asked and told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.lost = asyncio.Event()
        self.knocks: list[Args] = []
        calls = {"double": self.double, "refuse": self.refuse, "wait": self.wait, "who": self.who}
        calls["knock"] = self.knock
        tells = {"note": self.note, "broken": self.broken}
        self.link = Link(calls, tells, self.lost.set, {"noted": self.noted})

    def noted(self, args: Args) -> Any:
        if args["least"] > len(self.told):
            raise NotFoundError("not so many")
        return [len(self.told), request_id_var.get()]

    async def double(self, args: Args, blob: bytes) -> Reply:
        return 2 * args["number"], blob + blob

    async def knock(self, args: Args, blob: bytes) -> Reply:
        self.knocks.append(args)
        return None, b""

    async def refuse(self, args: Args, blob: bytes) -> Reply:
        raise NotFoundError("not here")

    async def wait(self, args: Args, blob: bytes) -> Reply:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return None, b""

    async def who(self, args: Args, blob: bytes) -> Reply:
        return [request_id_var.get(), caller_var.get().owner, caller_var.get().everything, client()], b""

    def note(self, args: Args, blob: bytes) -> None:
        self.told.append((args, blob))

    def broken(self, args: Args, blob: bytes) -> None:
        raise ValueError("this one is wrong")


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Link, Far]]:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    near, far = Link({}, {}), Far()
    await loop.create_connection(lambda: near, sock=here)
    await loop.create_connection(lambda: far.link, sock=there)
    yield near, far
    near.close()
    far.link.close()
    await far.lost.wait()


async def test_calls_are_answered_however_many_there_are(ends: tuple[Link, Far]) -> None:
    near, _ = ends
    blob = bytes(range(256)) * 4000
    found = await asyncio.gather(*(near.call("double", {"number": number}, blob) for number in range(50)))
    assert found == [(2 * number, blob + blob) for number in range(50)]


async def test_errors_arrive_as_what_they_are(ends: tuple[Link, Far]) -> None:
    near, _ = ends
    with pytest.raises(NotFoundError, match="not here"):
        await near.call("refuse", {})
    with pytest.raises(OtherProcessError, match="KeyError"):
        await near.call("double", {})


async def test_who_is_served_goes_along(ends: tuple[Link, Far]) -> None:
    near, _ = ends
    request_id_var.set("the request")
    address_var.set("10.0.0.1")
    caller_var.set(Caller("name", "owner", everything=False))
    assert (await near.call("who", {}))[0] == ["the request", "owner", False, "name"]
    caller_var.set(NO_KEY)
    assert (await near.call("who", {}))[0] == ["the request", "", True, "10.0.0.1"]


async def test_a_cancelled_call_is_cancelled_there_and_settled_afterwards(ends: tuple[Link, Far]) -> None:
    near, far = ends
    settled = asyncio.Event()
    task = asyncio.create_task(near.call("wait", {}, settled=settled.set))
    await far.began.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not settled.is_set()
    await settled.wait()
    assert far.ended.is_set()
    task = asyncio.create_task(near.call("wait", {}, settled=settled.clear))
    await asyncio.sleep(0)
    task.cancel()  # before the other end has begun with it
    async with asyncio.timeout(10):
        while settled.is_set():
            await asyncio.sleep(0.01)


async def test_what_is_told_comes_in_order_and_a_wrong_one_stops_nothing(ends: tuple[Link, Far]) -> None:
    near, far = ends
    for number in range(3):
        near.tell("note", {"number": number}, bytes([number]))
        near.tell("broken", {})
    assert (await near.call("double", {"number": 1}))[0] == 2
    assert far.told == [({"number": number}, bytes([number])) for number in range(3)]


async def test_a_threads_question_is_answered_at_once_and_after_what_was_told(ends: tuple[Link, Far]) -> None:
    near, far = ends
    request_id_var.set("the request")
    near.tell("note", {})
    assert await asyncio.to_thread(near.call_from_thread, "noted", {"least": 1}) == [1, "the request"]
    with pytest.raises(NotFoundError, match="not so many"):
        await asyncio.to_thread(near.call_from_thread, "noted", {"least": 2})
    assert (await near.call("noted", {"least": 0}))[0][0] == 1
    near.close()
    await far.lost.wait()
    with pytest.raises(LinkLostError):
        await asyncio.to_thread(near.call_from_thread, "noted", {"least": 0})


async def test_who_is_likely_to_be_let_in_does_not_knock(ends: tuple[Link, Far]) -> None:
    """The engine's process says beforehand whether there is a place; only a refusal needs its words."""
    near, far = ends
    count = SharedCount(new_count(1), 0, 1)
    door = RemoteDoor(Arena(new_arena(1)), count, KeptKeys(new_kept()))
    door.link = near
    count.open = True
    await door.knock()
    assert not far.knocks
    await door.knock("model", "1")  # which may not be here
    count.open = False
    await door.knock()
    assert far.knocks == [{"model": "model", "version": "1"}, {"model": None, "version": None}]


async def test_a_lost_link_ends_all_calls(ends: tuple[Link, Far]) -> None:
    near, far = ends
    settled: list[bool] = []
    task = asyncio.create_task(near.call("wait", {}, settled=lambda: settled.append(True)))
    await far.began.wait()
    far.link.close()
    with pytest.raises(LinkLostError, match="has lost its model and ends; try again later"):
        await task
    with pytest.raises(LinkLostError):
        await near.call("double", {"number": 1}, settled=lambda: settled.append(True))
    assert settled == [True, True]


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("there is none"),
        QueueFullError(17),
        HostMemoryError(3),
        KeyLimitedError("this key may ask 2 times a second", 1),
        InvalidRequestError([FieldProblem("a.0", "is wrong"), FieldProblem("b", "is too")]),
        VocabularyError("class 3 is doubled", 3),
        MemoryError("no more"),
        RuntimeError("something inside"),
    ],
)
async def test_clients_are_told_the_same_of_an_error(error: Exception) -> None:
    other = from_document(to_document(error))
    assert isinstance(other, type(error))
    one, two = problem_response(error, "id"), problem_response(other, "id")
    assert (one.status_code, one.body, one.raw_headers) == (two.status_code, two.body, two.raw_headers)
    if isinstance(error, ServiceError):
        assert type(other) is type(error)
