"""Requests that a worker does not answer itself: the whole application of the engine's process does.

All but segmentation goes this way, so that health, metrics, models and vocabularies are those of one service.
"""

import asyncio
import re
from itertools import count
from typing import TYPE_CHECKING

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.workers.link import Args, Link, Reply

if TYPE_CHECKING:
    from service.workers.desk import Desk

# What a worker answers: pictures go in or label maps come out
_OWN = re.compile(
    r"/v1/segment(/batch)?|/v1/tasks/image-segmentation|/v2/models/[^/]+(/versions/[^/]+)?/infer"
)
_PLAIN = ("type", "http_version", "method", "scheme", "path", "root_path", "client", "server")


class Tunnel:
    """An ASGI application: a worker's own, and the other process's for all that it does not answer.

    Args:
        own: the worker's application.
        root_path: that paths may begin with.
    """

    def __init__(self, own: ASGIApp, root_path: str):
        self._own = own
        self._root_path = root_path
        self._numbers = count(1)
        self._open: dict[int, tuple[Receive, asyncio.Queue[Message | None]]] = {}
        self.link: Link | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request, or the worker's life."""
        if scope["type"] != "http" or self._is_own(scope) or self.link is None:
            await self._own(scope, receive, send)
            return
        number = next(self._numbers)
        answer: asyncio.Queue[Message | None] = asyncio.Queue()
        self._open[number] = receive, answer
        asked = asyncio.create_task(self.link.call("asgi", {"number": number, "scope": _document(scope)}))
        asked.add_done_callback(lambda task: answer.put_nowait(None))
        try:
            while (message := await answer.get()) is not None:
                await send(message)
            await asked
        finally:
            asked.cancel()
            del self._open[number]

    async def receive(self, args: Args, blob: bytes) -> Reply:
        """For the other process: the next message of a request."""
        message = await self._open[args["number"]][0]()
        return {**message, "body": None}, message.get("body", b"")

    def send(self, args: Args, blob: bytes) -> None:
        """From the other process: a message of an answer."""
        message = args["message"]
        if message["type"] == "http.response.start":
            message["headers"] = [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in message["headers"]
            ]
        else:
            message["body"] = blob
        if (found := self._open.get(args["number"])) is not None:
            found[1].put_nowait(message)

    def _is_own(self, scope: Scope) -> bool:
        path = get_route_path({**scope, "root_path": self._root_path})
        return scope["method"] == "POST" and _OWN.fullmatch(path) is not None


async def serve_tunnelled(desk: "Desk", app: ASGIApp, args: Args, blob: bytes) -> Reply:
    """In the engine's process: runs a request of a worker's client."""
    number, scope = args["number"], _scope(args["scope"])

    async def receive() -> Message:
        message, body = await desk.link.call("receive", {"number": number})
        if message["type"] == "http.request":
            message["body"] = body
        return dict(message)

    async def send(message: Message) -> None:
        document = {**message}
        document.pop("body", None)
        if message["type"] == "http.response.start":
            document["headers"] = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
            ]
        desk.link.tell("send", {"number": number, "message": document}, bytes(message.get("body", b"")))

    await app(scope, receive, send)
    return None, b""


def _document(scope: Scope) -> Args:
    return {
        **{name: scope[name] for name in _PLAIN if name in scope},
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query_string": scope["query_string"].decode("latin-1"),
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        "since": scope.get("state", {}).get("since"),
    }


def _scope(document: Args) -> Scope:
    since = document.pop("since")
    return {
        **document,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "raw_path": document["raw_path"].encode("latin-1"),
        "query_string": document["query_string"].encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in document["headers"]],
        "state": {"tunnelled": True} | ({} if since is None else {"since": since}),
    }
