"""A service of several processes: which they are, and requests that any of them may get."""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.load.server import Server
from tests.waiting import WAIT

KEY = "a key that may be used a lot"
RARE = "a key that may be used once"
ADMIN = "a key of an administrator"
CLIENT = httpx.Client(timeout=WAIT, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def children(server: Server) -> list[int]:
    """Its processes beside the one that looks after them, the oldest first: it has the engine."""
    listed = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return sorted(map(int, listed.split()))


def ask(server: Server, method: str, path: str, *, key: str = KEY, **options: Any) -> httpx.Response:
    """One request on a connection of its own, which any worker may get."""
    headers = {"X-API-Key": key, "Connection": "close", **options.pop("headers", {})}
    return CLIENT.request(method, f"{server.url}{path}", headers=headers, **options)


def plain(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """An answer without what differs from request to request."""
    passing = {"date", "server-timing", "x-request-id", "content-length"}
    headers = {name: value for name, value in answer.headers.items() if name not in passing}
    try:
        return answer.status_code, headers, _plain(json.loads(answer.content))
    except ValueError:
        return answer.status_code, headers, answer.content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        passing = {"request_id", "timings_ms", "caches"}
        return {name: _plain(one) for name, one in value.items() if name not in passing}
    return [_plain(one) for one in value] if isinstance(value, list) else value
