"""A crowd's bytes are heard a few connections a turn of the event loop, in the order that they came."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.bench.process import HOST
from service.bench.requests import segment_request
from service.http.edge import EdgeProtocol
from service.http.turns import MOST_A_TURN, Turns
from service.observability.metrics import Metrics
from service.server import server_config
from tests.load.client import Connection
from tests.load.server import started
from tests.service.fakes import PNG, settings

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


class Wire(asyncio.Transport):
    """A client's connection, which takes all that is written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


@run
async def test_who_waits_is_not_silent_and_is_answered_though_the_server_stops() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = server_config(app, settings(idle_timeout_s=0.05), Metrics(), MOST_A_TURN + 3)
    config.load()

    def connect() -> tuple[EdgeProtocol, Wire]:
        made: Any = config.http_protocol_class
        protocol = made(config=config, server_state=ServerState(), app_state={})
        assert isinstance(protocol, EdgeProtocol)
        wire = Wire()
        protocol.connection_made(wire)
        return protocol, wire

    clients = [connect() for _ in range(MOST_A_TURN + 3)]
    for protocol, _ in clients:
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    _, late = connect()  # there is no place, and none of those that wait makes it one
    assert late.written.startswith(b"HTTP/1.1 503 ")
    waiting = clients[MOST_A_TURN:]
    time.sleep(0.1)  # the event loop is at something else, and finds their silence to be over
    for protocol, wire in waiting:
        assert not wire.closed
        protocol.shutdown()
    while not all(wire.closed for _, wire in waiting):
        await asyncio.sleep(0)
    assert [wire.written.startswith(b"HTTP/1.1 204 ") for _, wire in clients] == [True] * len(clients)


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
