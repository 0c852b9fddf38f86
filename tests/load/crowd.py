"""`python -m tests.load.crowd`: many more clients than a service has places; prints one JSON line.

How soon a client learns that there is no place for it, and how late the event loop runs beside that. Server
and clients have a core each, where the machine has two; the engine takes its time and no core. On a machine
that does other work, what the server says of its own time tells more than how long the clients waited.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.bench.process import HOST
from service.bench.requests import segment_request
from service.observability.quantiles import percentiles
from tests.load.client import Connection
from tests.load.server import Server, started
from tests.service.fakes import PNG

DEVICE_S = 0.05  # of a picture
LOOK_S = 0.5  # between two looks at the event loop's lag
LAG_WINDOW_S = 15.0  # that `ebseg_event_loop_lag_seconds` tells the worst of: it still knows of the start


@dataclass(slots=True)
class Crowd:
    """What the clients saw.

    Attributes:
        seconds: until an answer was there, by status.
        within: the same as the server tells it, from a request's headers to its answer's.
        lags: of the event loop, seconds, at each look.
        faults: connections that broke.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    within: dict[int, list[float]] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    faults: "Counter[str]" = field(default_factory=Counter)


async def client(port: int, crowd: Crowd, number: int, end: float) -> None:
    """Asks until the end, and comes back when a refusal says."""
    connection = Connection(HOST, port)
    count = 0
    while time.monotonic() < end:
        count += 1
        request = segment_request(
            PNG + b"%d %d" % (number, count), {"classes": ["sky"]}, accept="application/json"
        )
        began = time.monotonic()
        try:
            answer = await connection.ask(request)
        except (OSError, EOFError, TimeoutError) as error:
            crowd.faults[type(error).__name__] += 1
            continue
        crowd.seconds.setdefault(answer.status, []).append(time.monotonic() - began)
        total = re.search(r"total;dur=([0-9.]+)", answer.headers["server-timing"])
        assert total is not None
        crowd.within.setdefault(answer.status, []).append(float(total[1]) / 1000)
        pause = float(answer.headers.get("retry-after", 0))
        await asyncio.sleep(max(0.0, min(pause, end - time.monotonic())))
    await connection.closed()


async def look(server: Server, crowd: Crowd, end: float) -> None:
    """Notes the lag of the event loop again and again, once it has forgotten the start."""
    await asyncio.sleep(LAG_WINDOW_S)
    while time.monotonic() < end:
        metrics = await asyncio.to_thread(server.metrics)
        crowd.lags.append(metrics.value("event_loop_lag_seconds"))
        await asyncio.sleep(LOOK_S)


async def crowded(server: Server, clients: int, seconds: float) -> Crowd:
    """All clients at once, for so long."""
    crowd, end = Crowd(), time.monotonic() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look(server, crowd, end))
        for number in range(clients):
            tasks.create_task(client(server.port, crowd, number, end))
    return crowd


def run(clients: int, seconds: float, max_pending: int | None = None) -> dict[str, Any]:
    """What a crowd sees.

    Args:
        clients: at the same time.
        seconds: of load, above `LAG_WINDOW_S` for the lag to be known.
        max_pending: of the service; its own if left out.
    """
    own = {} if max_pending is None else {"EBSEG_MAX_PENDING": str(max_pending)}
    with started("tests.service.fakes", str(DEVICE_S), **own) as server:
        server.wait()
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            for thread in Path(f"/proc/{server.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores[:1])
            os.sched_setaffinity(0, cores[1:])
        try:
            before = server.cpu_seconds()
            crowd = asyncio.run(crowded(server, clients, seconds))
            worked = server.cpu_seconds() - before
        finally:
            os.sched_setaffinity(0, cores)
    return {
        "clients": clients,
        "seconds": seconds,
        "load_average": os.getloadavg()[0],
        "server_seconds_an_answer": worked / max(1, sum(map(len, crowd.seconds.values()))),
        "faults": dict(crowd.faults),
        "answers": {
            str(status): {
                "number": len(found),
                **percentiles(found, (50, 99)),
                "within_server": percentiles(crowd.within[status], (50, 99)),
            }
            for status, found in sorted(crowd.seconds.items())
        },
        # each is the worst of its last 15 s
        "event_loop_lag_seconds": {"looks": len(crowd.lags), **percentiles(crowd.lags, (50, 99))},
    }


def main() -> int:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.crowd", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="at the same time (default: 1000)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load (default: 30)")
    parser.add_argument("--max-pending", type=int, help="of the service (default: its own)")
    args = parser.parse_args()
    report = run(args.clients, args.seconds, args.max_pending)
    print(json.dumps(report))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
