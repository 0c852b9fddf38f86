"""What a connection knows of its request, and the way of requests that ask for it."""

import asyncio
import time
from dataclasses import dataclass

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.http import body as reading
from service.http import body_limits
from service.http.arrival import Arrival, arrival_of, put_arrival
from service.http.direct import Direct
from service.segmentation import answering
from tests.service.fakes import live
from tests.service.inference_protocol.wire import body, connected, head, read_answer


@dataclass
class Exchange:
    more_body: bool = True
    disconnected: bool = False


def test_a_body_is_complete_at_its_end_or_when_nobody_sends_it_any_more() -> None:
    for exchange, complete in (
        (Exchange(), False),
        (Exchange(more_body=False), True),
        (Exchange(disconnected=True), True),
    ):
        assert Arrival(exchange).complete is complete


def test_who_watches_is_told_once_that_the_client_has_gone() -> None:
    exchange, told = Exchange(), list[str]()
    arrival = Arrival(exchange)
    arrival.watch(lambda: told.append("nobody any more"))
    arrival.watch(None)
    arrival.gone()
    arrival.watch(lambda: told.append("in time"))
    arrival.gone()
    arrival.gone()
    assert told == ["in time"]
    exchange.disconnected = True
    arrival.watch(lambda: told.append("late"))
    assert told == ["in time", "late"]


def test_it_lies_in_the_requests_state() -> None:
    scope: Scope = {"state": {}}
    assert arrival_of(scope) is None
    put_arrival(scope["state"], arrival := Arrival(Exchange()))
    assert arrival_of(scope) is arrival


def test_a_request_that_is_here_as_a_whole_waits_for_no_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    counted = ((body_limits, "timeout_at"), (reading, "timeout"), (answering, "create_task"))
    for module, name in counted:
        monkeypatch.setattr(module, "asyncio", _Counted(name, waits))
    form = body()
    with live() as (url, _), connected(url) as connection:
        connection.sendall(head(len(form)) + form)
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
        assert waits == []
        connection.sendall(head(len(form)) + form[:50])
        time.sleep(0.1)
        connection.sendall(form[50:])
        assert read_answer(connection).startswith(b"HTTP/1.1 200 ")
    assert {"timeout", "timeout_at"} <= set(waits)  # bounded, once it has to be waited for
    assert "create_task" not in waits


class _Counted:
    """asyncio, which notes the use of one of its functions."""

    def __init__(self, name: str, uses: list[str]):
        self.name = name
        self.uses = uses

    def __getattr__(self, name: str) -> object:
        if name == self.name:
            self.uses.append(name)
        return getattr(asyncio, name)


@pytest.mark.parametrize(
    ("method", "path", "direct"),
    [
        ("POST", "/v1/segment", True),
        ("POST", "/below/v1/segment", True),
        ("GET", "/v1/segment", False),
        ("POST", "/v1/segment/", False),
        ("POST", "/v1/segment/batch", False),
    ],
)
@pytest.mark.anyio
async def test_one_route_is_answered_directly(method: str, path: str, direct: bool) -> None:
    taken: list[str] = []

    async def answer(request: Request) -> Response:
        taken.append(request.scope["route"].path)
        return Response()

    async def others(scope: Scope, receive: Receive, send: Send) -> None:
        taken.append("others")

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        pass

    app = Direct(others, route=Route("/v1/segment", answer, methods=["POST"]), answer=answer)
    scope: Scope = {"type": "http", "method": method, "path": path, "root_path": "/below", "headers": []}
    await app(scope, receive, send)
    assert taken == ["/v1/segment" if direct else "others"]
