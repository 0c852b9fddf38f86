"""The soak's connection: HTTP/1.1 on asyncio, kept alive, one request at a time, each made anew.

`ebseg bench service` has a generator of its own, `service/bench/load.py`, which is cheap because it looks
at nothing: its requests are made beforehand, and of an answer it reads status and length. Here every request
is another one, every answer goes to the judge with its headers, and clients hang up in the midst of a body.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from service.bench.requests import request

LONGEST_WAIT = 130.0  # seconds for an answer; the service itself gives up after 120
_STREAM_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers with names in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One client of the service; connects when it has to."""

    def __init__(self, host: str, port: int):
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Sends a whole request and reads its answer; cancelling it hangs up.

        Raises:
            OSError, EOFError, TimeoutError: no whole answer came.
        """
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                reader, writer = await self._connected()
                writer.write(request)
                await writer.drain()
                answer = await _read(reader)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def send_part(self, request: bytes) -> None:
        """Sends some bytes, and hangs up without having read an answer."""
        try:
            _, writer = await self._connected()
            writer.write(request)
            await writer.drain()
        finally:
            self.close()

    def close(self) -> None:
        """Hangs up."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def closed(self) -> None:
        """Hangs up, and waits until the socket is gone."""
        streams = self._streams
        self.close()
        if streams is not None:
            with contextlib.suppress(OSError):  # it is gone all the same
                await streams[1].wait_closed()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_STREAM_LIMIT)
        return self._streams


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), headers, body)


def json_request(method: str, path: str, document: dict[str, Any]) -> bytes:
    """A whole request with a JSON body."""
    return request(method, path, json.dumps(document).encode(), headers={"Content-Type": "application/json"})
