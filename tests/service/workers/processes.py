"""A service of several processes: which they are, and requests that any of them may get."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def connections_of(pid: int) -> int:
    """TCP connections that a process has, its listening socket aside."""
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(file.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in inodes and row[3] == "01" for row in rows)


@contextmanager
def clients_of_each(server: Server) -> Iterator[list[httpx.Client]]:
    """A client for each worker, the oldest first, whose requests go to that one alone."""
    found: dict[int, httpx.Client] = {}
    others: list[httpx.Client] = []
    workers = children(server)[1:]
    try:
        while len(found) < len(workers):
            before = {pid: connections_of(pid) for pid in workers}
            client = httpx.Client(
                base_url=server.url, timeout=WAIT, trust_env=False, headers={"X-API-Key": KEY}
            )
            assert client.get("/livez").status_code == 200
            own = [pid for pid in workers if connections_of(pid) > before[pid]]
            if len(own) == 1 and own[0] not in found:
                found[own[0]] = client
            else:
                others.append(client)
        yield [found[pid] for pid in workers]
    finally:
        for client in [*found.values(), *others]:
            client.close()


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
