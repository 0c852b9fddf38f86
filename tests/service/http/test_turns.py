"""A crowd's bytes are heard a few connections a turn of the event loop, in the order that they came."""

import asyncio
import time
from collections.abc import Callable, Coroutine

from service.bench.process import HOST
from service.bench.requests import segment_request
from service.http.turns import Turns
from tests.load.client import Connection
from tests.load.server import started
from tests.service.fakes import PNG

MOST = 3


def run(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


class Client:
    def __init__(self, heard: list["Client"]):
        self._heard = heard
        self.listens = True
        self.broken = False
        self.data = b""
        self.arrived: list[float] = []

    def hear(self, data: bytes, arrived: float) -> None:
        self._heard.append(self)
        if data == b"bad":
            raise ValueError("bad")
        self.data += data
        self.arrived.append(arrived)

    def be_deaf(self) -> None:
        self.listens = False

    def listen_again(self) -> None:
        self.listens = True

    def break_off(self) -> None:
        self.broken = True


def crowd(number: int) -> tuple[list[Client], list[Client]]:
    heard: list[Client] = []
    return [Client(heard) for _ in range(number)], heard


@run
async def test_few_are_heard_at_once() -> None:
    turns = Turns(MOST)
    clients, heard = crowd(MOST)
    for client in clients:
        turns.take(client, b"x")
    assert heard == clients
    assert all(client.listens for client in clients)


@run
async def test_many_are_heard_in_their_order_and_timers_between() -> None:
    turns = Turns(MOST)
    clients, heard = crowd(8)
    fired: list[int] = []
    asyncio.get_running_loop().call_later(0, lambda: fired.append(len(heard)))
    began = time.monotonic()
    for client in clients:
        turns.take(client, b"x")
    ended = time.monotonic()
    assert heard == clients[:3]
    assert [client.listens for client in clients] == [True] * 3 + [False] * 5
    seen = []
    while len(heard) < 8:
        await asyncio.sleep(0)
        seen.append(len(heard))
    assert heard == clients
    assert sorted(set(seen)) == [3, 6, 8] or sorted(set(seen)) == [6, 8]
    assert fired
    assert fired[0] < 8
    assert all(client.listens for client in clients)
    # a request's time counts from when its bytes came, not from its turn
    assert all(began <= client.arrived[0] <= ended for client in clients)


@run
async def test_who_comes_while_others_wait_waits_behind_them() -> None:
    turns = Turns(MOST)
    clients, heard = crowd(7)
    for client in clients[:6]:
        turns.take(client, b"x")
    turns.take(clients[4], b"y")  # it was on its way
    while len(heard) < 6:
        await asyncio.sleep(0)
        if clients[6] not in heard and clients[6].listens:
            turns.take(clients[6], b"z")
    while clients[6] not in heard:
        await asyncio.sleep(0)
    assert heard == clients
    assert clients[4].data == b"xy"


@run
async def test_who_left_is_not_heard() -> None:
    turns = Turns(MOST)
    clients, heard = crowd(6)
    for client in clients:
        turns.take(client, b"x")
    turns.forget(clients[4])
    turns.forget(clients[4])
    turns.forget(clients[0])
    for _ in range(5):
        await asyncio.sleep(0)
    assert heard == [*clients[:4], clients[5]]
    turns.take(clients[4], b"again")  # a later turn begins anew
    assert heard[-1] is clients[4]


@run
async def test_one_that_fails_is_broken_off_and_the_others_are_heard() -> None:
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(str(told["exception"])))
    turns = Turns(MOST)
    clients, heard = crowd(12)
    for number, client in enumerate(clients):
        turns.take(client, b"bad" if number in (4, 9) else b"x")
    while len(heard) < 12:
        await asyncio.sleep(0)
    assert heard == clients
    assert [number for number, client in enumerate(clients) if client.broken] == [4, 9]
    assert faults == ["bad", "bad"]


@run
async def test_three_hundred_that_ask_in_one_moment_are_all_answered() -> None:
    request = segment_request(PNG, {"classes": ["sky"]}, accept="application/json")
    with started("tests.service.fakes", "0", EBSEG_MAX_PENDING="4") as server:
        await asyncio.to_thread(server.wait)
        connections = [Connection(HOST, server.port) for _ in range(300)]
        for _ in range(2):  # new connections, and open ones
            answers = await asyncio.gather(*(connection.ask(request) for connection in connections))
            assert {answer.status for answer in answers} <= {200, 429}
            assert len(answers) == 300
        for connection in connections:
            await connection.closed()
