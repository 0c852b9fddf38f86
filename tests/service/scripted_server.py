"""Servers that answer by a script, for what the service itself does only now and then."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.service.fakes import in_thread
from tests.waiting import WAIT

ANSWER: dict[str, Any] = {
    "request_id": "r",
    "size": {"width": 2, "height": 1},
    "model": {"name": "m", "version": 1, "digest": "d", "untrained": False},
    "classes": [
        {
            "name": "sky",
            "label": 1,
            "color": "#ff0000",
            "trained": True,
            "area": 2,
            "fraction": 1.0,
            "mean_confidence": 0.5,
            "rle": {"size": [1, 2], "counts": "02"},
        }
    ],
    "background": {"threshold": None, "source": "uncalibrated"},
    "timings_ms": {"total": 1.0},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the script."""

    status: int = 200
    body: Any = field(default_factory=lambda: ANSWER)
    headers: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0  # before it begins
    drip: float = 0.0  # seconds between its bytes


def problem(status: int, slug: str, retry_after: object = None, **more: Any) -> Answer:
    """A problem document of the service."""
    document = {"type": f"urn:ebseg:problem:{slug}", "title": "T", "status": status, "detail": slug}
    headers = [] if retry_after is None else [("Retry-After", str(retry_after))]
    return Answer(status, document | {"request_id": "theirs"} | more, headers)


@dataclass(slots=True)
class Heard:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int  # of the client: tells connections apart
    at: float

    @property
    def document(self) -> dict[str, Any]:
        """The part `request` of a multipart body."""
        text = self.body.decode("latin-1").partition('name="request"\r\n\r\n')[2]
        document: dict[str, Any] = json.loads(text.partition("\r\n--")[0])
        return document


@dataclass(slots=True)
class Script:
    """A server, what it was asked, and what it answers: the last answer again and again."""

    answers: Sequence[Answer]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    together: int = 0  # most requests at a time
    _running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        assert scope["type"] == "http"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["raw_path"].decode()
        self.heard.append(Heard(scope["method"], path, headers, body, scope["client"][1], time.monotonic()))
        answer = self.answers[min(len(self.heard), len(self.answers)) - 1]
        self._running += 1
        self.together = max(self.together, self._running)
        await asyncio.sleep(answer.seconds)
        self._running -= 1
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        pairs = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        if answer.drip:
            for byte in content:
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                await asyncio.sleep(answer.drip)
            content = b""
        await send({"type": "http.response.body", "body": content})


@contextmanager
def scripted(*answers: Answer) -> Iterator[Script]:
    """A real uvicorn in a thread that answers by a script."""
    script = Script(answers)
    config = uvicorn.Config(
        script,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    with in_thread(uvicorn.Server(config)) as script.url:
        yield script


@contextmanager
def breaking(
    broken: int, answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
) -> Iterator[tuple[str, list[int]]]:
    """A server that hangs up on the first connections once it has read from them, and then answers."""
    served: list[int] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(WAIT)
                    connection.recv(65536)
                    served.append(len(served))
                    if len(served) > broken:
                        connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", served
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(WAIT)
            assert not thread.is_alive()
